"""Whatever bit of a file is flipped, its folder's checksums tell."""

import hashlib

import pytest

from ds_jax.runtime import checksums
from ds_jax.runtime.checksums import check, damage, digest


def filled(folder):
    (folder / "below").mkdir()
    contents = {"a.bin": b"some bytes", "below/b.txt": b""}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    checksums.write(folder, {name: digest(content) for name, content in contents.items()})


def test_what_is_as_it_was_written_has_no_damage(tmp_path):
    filled(tmp_path)
    assert damage(tmp_path) == ""
    assert check(tmp_path / "a.bin", b"some bytes") == b"some bytes"
    (tmp_path / "another").write_text("nobody knows it")
    assert damage(tmp_path) == ""
    assert check(tmp_path / "another", b"x") == b"x"


def test_a_folder_that_others_filled_is_taken_as_it_is(tmp_path):
    (tmp_path / "a.bin").write_bytes(b"x")
    assert damage(tmp_path) == ""
    assert check(tmp_path / "a.bin", b"y") == b"y"


@pytest.mark.parametrize("name", ["a.bin", "below/b.txt"])
@pytest.mark.parametrize("content", [b"", b"some bytfs", b"some bytes "])
def test_damage_names_the_file(tmp_path, name, content):
    filled(tmp_path)
    before = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content)
    assert damage(tmp_path) == (
        f"{tmp_path / name} is damaged: it is not as it was written" if content != before else ""
    )
    if name == "a.bin":
        with pytest.raises(ValueError, match=rf"{tmp_path}/a\.bin is damaged"):
            check(tmp_path / name, content)


def test_missing_files_are_damage(tmp_path):
    filled(tmp_path)
    (tmp_path / "below/b.txt").unlink()
    assert damage(tmp_path) == f"{tmp_path}/below/b.txt is missing"


def test_damaged_checksums_are_damage(tmp_path):
    filled(tmp_path)
    path = tmp_path / checksums.FILE
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        # Its own checksum may lose its name, and blanks do not matter: then all else is whole.
        if found := damage(tmp_path):
            assert str(tmp_path) in found
        else:
            assert checksums._read(tmp_path)["a.bin"] == digest(b"some bytes")


def test_the_digest_of_a_file_is_sha256(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    assert digest(tmp_path / "a") == digest(content) == hashlib.sha256(content).hexdigest()

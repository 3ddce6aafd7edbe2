"""Files are whole or absent, damage is noticed, and names of any bytes can be printed."""

import hashlib
import json
import os
import time
from pathlib import Path

import pytest

from ds_jax.runtime import files


def test_only_temporary_folders_of_the_day_before_are_removed(tmp_path):
    yesterday = time.time() - 25 * 3600
    names = {"tmpold": yesterday, "tmpyoung": time.time() - 3600, "compiled": yesterday}
    for name, moment in names.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_bytes(b"half")
        os.utime(tmp_path / name, (moment, moment))
    (tmp_path / "tmpfile").write_bytes(b"")
    os.utime(tmp_path / "tmpfile", (yesterday, yesterday))
    files.remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"tmpyoung", "compiled", "tmpfile"}
    files.remove_abandoned(tmp_path / "none")


def test_only_half_written_files_are_removed(tmp_path):
    for name in ("a.json.0123.tmp", "a.json", "tmp"):
        (tmp_path / name).write_text("")
    files.remove_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a.json", "tmp"]
    files.remove_unfinished(tmp_path / "nothing")


def test_text_is_kept_as_given_in_a_new_folder(tmp_path):
    path = tmp_path / "new" / "folder" / "text"
    files.write_text(path, "niño\r\n\n")
    assert path.read_bytes() == "niño\r\n\n".encode()


def test_text_written_in_pieces_is_whole_or_absent(tmp_path):
    path = tmp_path / "new" / "text"
    with files.open_text(path) as file:
        file.write("niño\n")
        assert not path.exists()
        file.write("end\r\n")
    with pytest.raises(TypeError), files.open_text(path) as file:
        file.write(b"no text")
    assert path.read_bytes() == "niño\nend\r\n".encode()
    assert os.listdir(path.parent) == ["text"]


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "text"
    files.write_text(path, "old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["text"]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    steps, fsync, replace = [], os.fsync, os.replace

    def record_fsync(descriptor):
        steps.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", record_fsync)
    monkeypatch.setattr(os, "replace", lambda a, b: steps.append("renamed") or replace(a, b))
    files.write_text(tmp_path / "a", "text")
    content, renamed, folder = steps
    assert content.startswith(f"{tmp_path}/a.")
    assert (renamed, folder) == ("renamed", str(tmp_path))


@pytest.mark.parametrize("name", ["file", "file/below"])
def test_a_folder_is_checked_before_the_work(tmp_path, name):
    files.check_writable(tmp_path / "new" / "folder")
    assert not list((tmp_path / "new" / "folder").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(
        OSError, match=f"^the folder {tmp_path / name} cannot be made .* --data_dir"
    ):
        files.check_writable(tmp_path / name, "--data_dir")
    for write in (files.make_folder, lambda folder: files.write_text(folder / "a", "text")):
        with pytest.raises(OSError, match=f"^the folder {tmp_path / name} cannot be made "):
            write(tmp_path / name)


def test_a_home_folder_stands_for_its_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    wanted = {
        "~": tmp_path,
        "~/a b": tmp_path / "a b",
        "~root/x": Path("/root/x"),
        "a~": Path("a~"),
    }
    assert {path: files.expand(path) for path in wanted} == wanted
    with pytest.raises(ValueError, match=r"^~nobody_here/x: .*~nobody_here"):
        files.expand("~nobody_here/x")
    (tmp_path / "~nobody_here").touch()  # a shell too gives a file by this name
    assert files.expand("~nobody_here") == Path("~nobody_here")


def test_names_of_any_bytes_can_be_printed():
    assert files.path_text(os.fsdecode(b"\xff.wav")) == r"\xff.wav"
    assert files.printable("a\n\x1b[31m\N{RIGHT-TO-LEFT OVERRIDE}ñ b") == r"a\n\x1b[31m\u202eñ b"


def test_json_is_strict_and_readable(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"niño": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"niño": [1, 2.5, None]}
    assert "niño" in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(path, {"value": float("nan")})


def test_json_of_other_programs_is_read_unchanged(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}')
    assert files.read_json(path) == {"a": 1}
    with pytest.raises(FileNotFoundError):
        files.read_json(tmp_path / "b.json")
    for text in ("{", "[]", "\udc00"):
        path.write_text(text, errors="surrogatepass")
        with pytest.raises(ValueError, match=r"a\.json"):
            files.read_json(path)


def test_sealed_json_reveals_any_changed_bit(tmp_path):
    path, content = tmp_path / "a.json", {"b": [1, 2.5, None], "a": {"niño": True}}
    files.write_json(path, content, sealed=True)
    assert files.read_json(path) == content
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            path.write_bytes(changed)
            try:
                read = files.read_json(path)
            except ValueError:
                continue
            # A blank has become another, or the checksum has lost its name.
            assert {name: read[name] for name in content} == content


def test_tuples_seal_as_the_lists_that_they_become():
    tuples, lists = {"a": (1, (2,))}, {"a": [1, [2]]}
    assert files.seal(tuples)[files.CHECKSUM] == files.seal(lists)[files.CHECKSUM]


def test_sha256_is_that_of_the_content(tmp_path):
    content = bytes(range(256)) * 5000
    (tmp_path / "a").write_bytes(content)
    expected = hashlib.sha256(content).hexdigest()
    assert files.sha256(tmp_path / "a") == files.sha256(content) == expected


@pytest.fixture
def folder(tmp_path):
    """A folder of two files and their checksums."""
    contents = {"a.bin": b"some bytes", "below/b.txt": b""}
    (tmp_path / "below").mkdir()
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    hashes = {name: files.sha256(content) for name, content in contents.items()}
    files.write_checksums(tmp_path, hashes)
    return tmp_path


def test_a_folder_without_damage_passes(folder):
    (folder / "another").write_text("which checksums.json does not list")
    assert files.find_damage(folder) == ""
    assert files.check_content(folder / "a.bin", b"some bytes") == b"some bytes"
    assert files.check_content(folder / "another", b"x") == b"x"
    assert files.find_damage(folder / "below") == ""  # it has no checksums.json
    assert files.check_content(folder / "below/b.txt", b"y") == b"y"


@pytest.mark.parametrize("name", ["a.bin", "below/b.txt"])
@pytest.mark.parametrize("content", [None, b"some bytfs", b"some bytes "])
def test_damage_names_the_file(folder, name, content):
    path = folder / name
    path.unlink() if content is None else path.write_bytes(content)
    assert files.find_damage(folder).startswith(f"{path} is ")
    if name == "a.bin":
        with pytest.raises(ValueError, match=f"^{path} "):
            files.check_content(path, content or b"")


def test_damaged_checksums_are_damage(folder):
    path = folder / files.CHECKSUMS
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 1]) + whole[position + 1 :])
        # The seal may lose its name, and blanks do not matter: the hashes are right then.
        if damage := files.find_damage(folder):
            assert str(folder) in damage
        else:
            assert files.read_json(path)["sha256"]["a.bin"] == files.sha256(b"some bytes")

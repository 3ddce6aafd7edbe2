import json
import os
import time

import pytest

from ds_jax.runtime.files import (
    check_writable,
    open_text,
    read_json,
    remove_abandoned,
    remove_unfinished,
    seal,
    write_json,
    write_text,
)


def test_temporary_folders_of_the_day_before_are_removed_and_nothing_else(tmp_path):
    yesterday = time.time() - 25 * 3600
    names = {"tmpold": yesterday, "tmpyoung": time.time() - 3600, "compiled": yesterday}
    for name, moment in names.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "half").write_bytes(b"half")
        os.utime(tmp_path / name, (moment, moment))
    (tmp_path / "tmpfile").write_bytes(b"")
    os.utime(tmp_path / "tmpfile", (yesterday, yesterday))
    remove_abandoned(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"tmpyoung", "compiled", "tmpfile"}
    remove_abandoned(tmp_path / "none")


def test_text_is_kept_as_given_in_a_new_folder(tmp_path):
    path = tmp_path / "new" / "folder" / "text"
    write_text(path, "niño\r\n\n")
    assert path.read_bytes() == "niño\r\n\n".encode()


def test_an_interrupted_write_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "text"
    write_text(path, "old")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["text"]


def test_json_is_strict_and_readable(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"niño": [1, 2.5, None]})
    assert json.loads(path.read_text(encoding="utf-8")) == {"niño": [1, 2.5, None]}
    assert "niño" in path.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"value": float("nan")})


def test_a_folder_is_checked_before_the_work(tmp_path):
    check_writable(tmp_path / "new" / "folder")
    assert not list((tmp_path / "new" / "folder").iterdir())
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match=r"file cannot be written \(File exists\)"):
        check_writable(tmp_path / "file")
    with pytest.raises(OSError, match=r"below cannot be written \(Not a directory\)"):
        check_writable(tmp_path / "file" / "below")


def test_text_written_in_pieces_is_whole_or_not_there(tmp_path):
    path = tmp_path / "new" / "text"
    with open_text(path) as file:
        file.write("niño\n")
        assert not path.exists()
        file.write("end\r\n")
    assert path.read_bytes() == "niño\nend\r\n".encode()
    with pytest.raises(TypeError), open_text(path) as file:
        file.write(b"no text")
    assert path.read_bytes() == "niño\nend\r\n".encode()
    assert os.listdir(path.parent) == ["text"]


def read_or_none(path):
    try:
        return read_json(path)
    except ValueError:
        return None


def test_sealed_json_tells_of_any_changed_bit(tmp_path):
    path, content = tmp_path / "a.json", {"b": [1, 2.5, None], "a": {"niño": True}}
    write_json(path, content, sealed=True)
    assert read_json(path) == content
    whole = path.read_bytes()
    for position in range(len(whole)):
        for bit in range(8):
            changed = bytearray(whole)
            changed[position] ^= 1 << bit
            path.write_bytes(changed)
            if (read := read_or_none(path)) is not None:
                # A blank has become another, or the checksum has lost its name.
                assert {name: read[name] for name in content} == content


def test_json_of_others_is_taken_as_it_is(tmp_path):
    (tmp_path / "a.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "a.json") == {"a": 1}
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "b.json")
    for text in ("{", "[]", "\udc00"):
        (tmp_path / "a.json").write_text(text, errors="surrogatepass")
        with pytest.raises(ValueError, match=r"a\.json"):
            read_json(tmp_path / "a.json")


def test_tuples_seal_as_the_lists_that_they_become():
    assert seal({"a": (1, (2,))})["checksum"] == seal({"a": [1, [2]]})["checksum"]


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os,
        "fsync",
        lambda descriptor: (
            done.append(os.readlink(f"/proc/self/fd/{descriptor}")) or fsync(descriptor)
        ),
    )
    monkeypatch.setattr(os, "replace", lambda a, b: done.append("named") or replace(a, b))
    write_text(tmp_path / "a", "text")
    content, named, folder = done
    assert content.startswith(f"{tmp_path}/a.")
    assert (named, folder) == ("named", str(tmp_path))


def test_remains_of_killed_processes_are_removed(tmp_path):
    for name in ("a.json.0123.tmp", "a.json", "tmp"):
        (tmp_path / name).write_text("")
    remove_unfinished(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["a.json", "tmp"]
    remove_unfinished(tmp_path / "nothing")

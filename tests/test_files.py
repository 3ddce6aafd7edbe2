import json
import os

import pytest

from ds_jax.files import check_writable, open_text, write_json, write_text


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

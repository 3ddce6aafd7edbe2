"""What a process finds before its work: devices, and a folder for compiled programs."""

import jax
import pytest

from ds_jax.runtime import processes


def test_devices_are_counted_by_their_kind():
    assert processes.devices() == {"kind": "cpu", "number": jax.device_count()}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (AssertionError(), "not installed"),
        (RuntimeError("Unable to initialize backend 'cuda': no driver\nmore"), "no driver"),
    ],
    ids=["plugin", "driver"],
)
def test_devices_that_are_not_there_are_one_sentence(monkeypatch, error, reason):
    def fail():
        raise error

    monkeypatch.setattr(jax, "devices", fail)
    monkeypatch.setenv("JAX_PLATFORMS", "cuda")
    with pytest.raises(ValueError, match=f"JAX_PLATFORMS=cuda .*{reason}") as raised:
        processes._find_devices()
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("given", ["", "~/programs", "gs://bucket/programs"])
def test_compiled_programs_have_a_folder(tmp_path, monkeypatch, given):
    settings = {"jax_compilation_cache_dir": given or None}
    monkeypatch.setattr(jax, "config", FakeConfig(settings))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    processes._keep_programs()
    homes = {"": tmp_path / ".cache/ds_jax/compiled", "~/programs": tmp_path / "programs"}
    assert settings["jax_compilation_cache_dir"] == str(homes.get(given, given))
    assert all(folder.is_dir() for folder in [homes.get(given, tmp_path)])


class FakeConfig:
    """JAX's configuration, as far as the folder is concerned."""

    def __init__(self, settings):
        self.update = settings.__setitem__
        self.jax_compilation_cache_dir = settings["jax_compilation_cache_dir"]

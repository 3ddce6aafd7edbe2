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
    settings = {"jax_compilation_cache_dir": given or None, "jax_platforms": "cpu"}
    monkeypatch.setattr(jax, "config", FakeConfig(settings))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("XLA_FLAGS", "")  # which is set too
    processes._prepare_compiler()
    homes = {"": tmp_path / ".cache/ds_jax/compiled", "~/programs": tmp_path / "programs"}
    assert settings["jax_compilation_cache_dir"] == str(homes.get(given, given))
    assert all(folder.is_dir() for folder in [homes.get(given, tmp_path)])


@pytest.mark.parametrize(
    ("asked", "installed", "there", "accelerated"),
    [
        (None, True, True, True),
        (None, True, False, False),
        (None, False, True, False),
        ("cpu", True, True, False),
        ("cuda", True, True, True),
    ],
    ids=["device", "package alone", "device alone", "CPU asked for", "GPU asked for"],
)
def test_a_package_alone_makes_no_accelerator(
    tmp_path, monkeypatch, asked, installed, there, accelerated
):
    (tmp_path / "accel0").touch()
    files = (str(tmp_path / "nvidia[0-9]*"), str(tmp_path / "accel[0-9]*"))[: 1 + there]
    monkeypatch.setattr(processes, "_DEVICE_FILES", files)
    monkeypatch.setattr(processes, "entry_points", lambda group: ())
    monkeypatch.setattr(processes, "find_spec", lambda name: name if installed else None)
    monkeypatch.setattr(jax, "config", FakeConfig({"jax_platforms": asked}))
    assert processes._is_accelerated() is accelerated


class FakeConfig:
    """JAX's configuration, as far as it is asked for."""

    def __init__(self, settings):
        self.update = settings.__setitem__
        for name, value in settings.items():
            setattr(self, name, value)

"""Features are those of the network itself, on any devices, and are computed once.

Also the program of its trial of two processes: python test_deep_features.py FOLDER, with the
devices and the process' rank in the environment.
"""

import dataclasses
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from ds_jax.features.spectrogram import PictureSettings
from ds_jax.models.preprocessing import network_input
from ds_jax.runtime import processes
from ds_jax.systems import deep_features
from ds_jax.systems.deep_features import LayerFeatures
from ds_jax.training import parallel

SETTINGS = PictureSettings(canvas=48, size=64, preprocessing="deepspectrum")
PICTURES = np.random.default_rng(0).integers(0, 256, (7, 6, 6), np.uint8).repeat(8, 1).repeat(8, 2)
TIMELINES = PictureSettings(layout="timeline", mel_bands=32, colour_map="gray")
WEIGHTS = tiny.pretrained()
TWO = ("block3_pool", "block5_pool")
LAYERS = tiny.NARROW.feature_layers
WIDTHS = dict(zip(LAYERS, (*tiny.CHANNELS, tiny.UNITS), strict=True))


def compute(pictures, layers, settings, weights, cache):
    return LayerFeatures(tiny.NARROW, layers, settings, weights).compute(pictures, cache)


@pytest.fixture
def runs(monkeypatch):
    """The layers of each pass through the network, which is left out: it gives its number."""
    passes = []

    def note(self, pictures):
        passes.append(tuple(self.layers))
        shapes = {layer: (len(pictures), WIDTHS[layer]) for layer in self.layers}
        return {layer: np.full(shape, len(passes), np.float32) for layer, shape in shapes.items()}

    monkeypatch.setattr(LayerFeatures, "_run", note)
    return passes


def directly(layer, settings=SETTINGS, weights=WEIGHTS, pictures=PICTURES):
    """The layer as the network itself gives it, all pictures at once."""
    kind = tiny.NARROW.input_of(settings.preprocessing)
    x = network_input(jnp.asarray(pictures), settings.colour_map, settings.size, kind)
    trunk, top = tiny.NARROW.trunk(tiny.NARROW.blocks), tiny.NARROW.top(tiny.UNITS)
    outputs = jax.jit(trunk.apply)({"params": weights}, x)
    if layer == "fc2":
        return np.asarray(top.apply({"params": weights}, outputs["block5_pool"]))
    return np.asarray(outputs[layer], np.float64).mean(axis=(1, 2))


def assert_close(one, other):
    assert np.abs(other).max() > 1e-3
    np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5 * np.abs(other).max())


@pytest.mark.parametrize(
    ("colour_map", "preprocessing"), [("viridis", "deepspectrum"), ("magma", "caffe")]
)
def test_a_blocks_features_are_the_means_of_its_channels(colour_map, preprocessing):
    settings = dataclasses.replace(SETTINGS, colour_map=colour_map, preprocessing=preprocessing)
    features = compute(PICTURES, LAYERS[:5], settings, WEIGHTS, None)
    assert features.dtype == np.float32
    assert features.shape == (7, 50)
    parts = np.split(features, np.cumsum(tiny.CHANNELS)[:-1], axis=1)
    for layer, part in zip(LAYERS[:5], parts, strict=True):
        assert_close(part, directly(layer, settings))


def test_fc2_is_the_layer_after_its_relu():
    settings = dataclasses.replace(SETTINGS, size=224)
    weights = tiny.pretrained(side=7)
    features = compute(PICTURES[:2], ["fc2", "block5_pool"], settings, weights, None)
    assert features.shape == (2, tiny.UNITS + 16)
    assert features.min() == 0
    assert_close(features[:, : tiny.UNITS], directly("fc2", settings, weights, PICTURES[:2]))
    assert_close(features[:, -16:], directly("block5_pool", settings, weights, PICTURES[:2]))


def test_rows_and_statistics_of_a_block_are_pooled():
    layer, (channels, height) = TWO[0], (8, 8)
    settings, pictures = SETTINGS, jnp.asarray(PICTURES)
    x = network_input(pictures, settings.colour_map, settings.size, "bgr")
    trunk = tiny.NARROW.trunk(tiny.NARROW.blocks)
    map = np.asarray(jax.jit(trunk.apply)({"params": WEIGHTS}, x)[layer])
    pooled = {
        pooling: LayerFeatures(tiny.NARROW, [layer], SETTINGS, WEIGHTS, pooling)
        for pooling in ("rows", "statistics")
    }
    rows = pooled["rows"].compute(PICTURES, None).reshape(7, height, channels)
    assert_close(rows, map.mean(axis=2))
    means, deviations = np.split(pooled["statistics"].compute(PICTURES, None), 2, axis=1)
    assert_close(means, map.mean(axis=(1, 2)))
    assert_close(deviations, np.sqrt(map.var(axis=(1, 2)) + 1e-4))


@pytest.mark.parametrize(
    "pooling", ["statistics", *(pytest.param(x, marks=pytest.mark.slow) for x in ("mean", "rows"))]
)
def test_the_features_of_a_timeline_do_not_depend_on_those_beside_it(
    pooling, monkeypatch, tmp_path
):
    monkeypatch.setattr(parallel, "WIDTH", 2)
    rng, widths = np.random.default_rng(0), (100, 64, 155, 71)
    timelines = np.zeros((4, 32, 155), np.uint8)
    for row, width in zip(timelines, widths, strict=True):
        row[:, :width] = rng.integers(1, 256, (32, width))
    features = LayerFeatures(tiny.NARROW, TWO, TIMELINES, WEIGHTS, pooling)
    together = features.compute(timelines, tmp_path)
    # A timeline of 32 bands is 4 rows high after block 3, and 1 after block 5.
    assert together.shape == (4, {"mean": 24, "statistics": 48, "rows": 48}[pooling])
    for row, width in zip(range(4), widths, strict=True):
        alone = features.compute(timelines[row : row + 1, :, :width], None)
        assert_close(together[row], alone[0])
    assert len(list(tmp_path.iterdir())) == 2
    np.testing.assert_array_equal(features.compute(timelines, tmp_path), together)


def test_layers_stand_side_by_side_in_the_order_asked_for():
    layers = ("block4_pool", "block1_pool", "block5_pool")
    features = compute(PICTURES, layers, SETTINGS, WEIGHTS, None)
    assert_close(features, np.concatenate([directly(layer) for layer in layers], axis=1))


def test_no_block_above_the_highest_layer_is_computed_or_needed():
    lower = {name: layer for name, layer in WEIGHTS.items() if name < "block3"}
    features = compute(PICTURES, ["block2_pool"], SETTINGS, lower, None)
    assert_close(features, directly("block2_pool"))


@pytest.mark.parametrize("width", [1, 3])
def test_batches_have_one_shape_and_do_not_matter(monkeypatch, width):
    """Seven pictures leave a last batch that is not full, but for one at a time."""
    shapes = []

    def note(pictures, *rest):
        shapes.append(pictures.shape)  # once for each compilation
        return network_input(pictures, *rest)

    monkeypatch.setattr(parallel, "WIDTH", width)
    monkeypatch.setattr(deep_features, "network_input", note)
    assert_close(compute(PICTURES, TWO[:1], SETTINGS, WEIGHTS, None), directly(TWO[0]))
    assert shapes == [(width, 48, 48)]


def test_features_are_computed_once(tmp_path, runs):
    first = compute(PICTURES, TWO, SETTINGS, WEIGHTS, tmp_path / "new")
    again = compute(PICTURES, TWO, SETTINGS, WEIGHTS, tmp_path / "new")
    assert first.dtype == again.dtype == np.float32
    assert first.shape == again.shape == (7, 8 + 16)
    assert (first == 1).all()
    assert (again == 1).all()
    assert runs == [TWO]
    kept = sorted(path.name for path in (tmp_path / "new").iterdir())
    assert [name.rpartition("-")[0] for name in kept] == [
        "vgg16-block3_pool-deepspectrum",
        "vgg16-block5_pool-deepspectrum",
    ]


def test_only_missing_layers_are_computed_in_one_pass(tmp_path, runs):
    compute(PICTURES, TWO, SETTINGS, WEIGHTS, tmp_path)
    layers = ("block5_pool", "block2_pool", "block3_pool", "block1_pool")
    features = compute(PICTURES, layers, SETTINGS, WEIGHTS, tmp_path)
    assert runs == [TWO, ("block2_pool", "block1_pool")]
    assert features[0].tolist() == [1] * 16 + [2] * 6 + [1] * 8 + [2] * 4


def with_other_weights(layer):
    kernel = WEIGHTS[layer]["kernel"].copy()
    kernel.flat[-1] += 1
    return WEIGHTS | {layer: WEIGHTS[layer] | {"kernel": kernel}}


OTHERS = {
    "colour map": {"settings": dataclasses.replace(SETTINGS, colour_map="magma")},
    "size": {"settings": dataclasses.replace(SETTINGS, size=48)},
    "preprocessing": {"settings": dataclasses.replace(SETTINGS, preprocessing="caffe")},
    "weights": {"weights": with_other_weights("block3_conv1")},
    "pictures": {"pictures": PICTURES[::-1]},
    "number of pictures": {"pictures": PICTURES[:6]},
    "shape of pictures": {"pictures": PICTURES.reshape(28, 24, 24)},
}


@pytest.mark.parametrize("other", OTHERS)
def test_features_of_something_else_are_computed(tmp_path, runs, other):
    given = {"pictures": PICTURES, "settings": SETTINGS, "weights": WEIGHTS} | OTHERS[other]
    compute(PICTURES, TWO[:1], SETTINGS, WEIGHTS, tmp_path)
    features = compute(layers=TWO[:1], cache=tmp_path, **given)
    assert (features == 2).all()
    assert len({path.name for path in tmp_path.iterdir()}) == 2


def test_another_dtype_or_version_is_something_else(tmp_path, runs, monkeypatch):
    compute(PICTURES, TWO[:1], SETTINGS, WEIGHTS, tmp_path)
    monkeypatch.setattr(deep_features, "VERSION", deep_features.VERSION + 1)
    compute(PICTURES, TWO[:1], SETTINGS, WEIGHTS, tmp_path)
    monkeypatch.setattr(parallel, "compute_dtype", lambda: jnp.bfloat16)
    compute(PICTURES, TWO[:1], SETTINGS, WEIGHTS, tmp_path)
    assert len(runs) == len(list(tmp_path.iterdir())) == 3


def test_bfloat16_has_float32_means(monkeypatch):
    monkeypatch.setattr(parallel, "compute_dtype", lambda: jnp.bfloat16)
    features = compute(PICTURES, TWO[:1], SETTINGS, WEIGHTS, None)
    assert features.dtype == np.float32
    assert (features != features.astype(jnp.bfloat16)).mean() > 0.9
    wanted = directly(TWO[0])
    np.testing.assert_allclose(features, wanted, rtol=0.02, atol=0.02 * wanted.max())
    assert not np.allclose(features, wanted, rtol=1e-4)


@pytest.mark.parametrize("layer", ["block4_conv1", "fc2"])
def test_weights_above_a_layer_do_not_matter_to_it(tmp_path, runs, layer):
    compute(PICTURES, TWO[:1], SETTINGS, WEIGHTS, tmp_path)
    compute(PICTURES, TWO[:1], SETTINGS, with_other_weights(layer), tmp_path)
    assert runs == [TWO[:1]]


DAMAGES = {
    "empty": lambda path: path.write_bytes(b""),
    "cut off": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "no array": lambda path: path.write_bytes(b"\x93NUMPY\x01\x00\x0a\x00no header "),
    "a bit": lambda path: path.write_bytes(flipped(path.read_bytes())),
    "other shape": lambda path: np.savez(path, features=np.zeros((7, 9), np.float32)),
    "other type": lambda path: np.savez(path, features=np.zeros((7, WIDTHS[TWO[0]]))),
    "pickled": lambda path: np.savez(path, features=np.full((7, WIDTHS[TWO[0]]), None)),
}


def flipped(content):
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_features_are_computed_anew(tmp_path, runs, capsys, damage):
    compute(PICTURES, TWO, SETTINGS, WEIGHTS, tmp_path)
    (path,) = tmp_path.glob("*block3*")
    whole = path.read_bytes()
    DAMAGES[damage](path)
    assert path.read_bytes() != whole
    capsys.readouterr()
    features = compute(PICTURES, TWO, SETTINGS, WEIGHTS, tmp_path)
    assert features[0].tolist() == [2] * 8 + [1] * 16
    assert runs == [TWO, TWO[:1]]
    assert capsys.readouterr().out.startswith(f"{path} is damaged and is computed anew: ")
    with np.load(path) as stored:
        assert stored["features"].shape == (7, WIDTHS[TWO[0]])


def test_what_a_killed_write_has_left_is_removed_by_the_next(tmp_path):
    left = tmp_path / "vgg16-block3_pool-caffe-12ab.npz.3f.tmp"
    left.write_bytes(b"half")
    compute(PICTURES, TWO[:1], SETTINGS, WEIGHTS, tmp_path)
    assert not left.exists()
    assert len(list(tmp_path.iterdir())) == 1


def test_a_long_pass_says_how_fast_it_was(monkeypatch, capsys):
    monkeypatch.setattr(deep_features, "LONG", math.inf)
    compute(PICTURES, TWO[:1], SETTINGS, WEIGHTS, None)
    assert "pictures" not in capsys.readouterr().out
    monkeypatch.setattr(deep_features, "LONG", 0)
    compute(PICTURES, TWO[:1], SETTINGS, WEIGHTS, None)
    captured = capsys.readouterr()
    compiling, result = captured.out.splitlines()
    assert compiling.startswith("compiling VGG16")  # before it takes time
    assert result.startswith("VGG16 features: 7 pictures, ")
    assert captured.err == ""  # no progress where there is no terminal


def trial(folder: Path) -> None:
    """Writes features in two processes with a disk each, of which the second knows block3."""
    cache = folder / f"disk_{jax.process_index()}"
    features = compute(PICTURES, TWO, SETTINGS, WEIGHTS, cache)
    np.save(folder / f"process_{jax.process_index()}.npy", features)
    assert jax.device_count() == 8


@pytest.mark.slow
def test_eight_devices_of_two_processes_give_the_same(tmp_path):
    """Seven pictures leave a device without any; the processes' files differ beforehand."""
    alone = compute(PICTURES, TWO, SETTINGS, WEIGHTS, None)
    compute(PICTURES, TWO[:1], SETTINGS, WEIGHTS, tmp_path / "disk_1")
    shared = {
        "JAX_COORDINATOR_ADDRESS": f"127.0.0.1:{tiny.free_port()}",
        "DS_JAX_PROCESSES": "2",
        "JAX_NUM_CPU_DEVICES": "4",
        "JAX_PLATFORMS": "cpu",
    }
    command = [sys.executable, __file__, str(tmp_path)]
    running = [
        subprocess.Popen(command, env={**os.environ, **shared, "DS_JAX_PROCESS": rank})
        for rank in "01"
    ]
    try:
        assert [process.wait(timeout=120) for process in running] == [0, 0]
    finally:
        for process in running:
            process.kill()
            process.wait()
    for rank in range(2):
        np.testing.assert_allclose(np.load(tmp_path / f"process_{rank}.npy"), alone, rtol=1e-5)
    assert len(list((tmp_path / "disk_0").iterdir())) == 2
    assert len(list((tmp_path / "disk_1").iterdir())) == 1  # only the first process writes


if __name__ == "__main__":
    processes.start(distributed=True)
    trial(Path(sys.argv[1]))

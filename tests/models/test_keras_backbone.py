"""Networks of Keras in our trees of parameters, against Keras itself with the same weights."""

import hashlib
import sys

import h5py
import jax
import keras
import keras_networks
import numpy as np
import pytest
import safetensors.numpy
import tiny
from refusals import refused_field

from ds_jax.features import extract
from ds_jax.models import keras_backbone, pretrained
from ds_jax.models.keras_backbone import APPLICATIONS, BACKBONES, build
from ds_jax.runtime.errors import ConfigError
from ds_jax.systems import on_pictures
from ds_jax.training.checkpoints import made

# Keras writes its variables in a way that NumPy 2 finds old.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
SMALL = "mobilenet_v2"


@pytest.fixture(scope="module")
def network():
    return keras_networks.create(SMALL, 32)


@pytest.fixture(scope="module")
def file(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    network.save_weights(path)
    return path


@pytest.fixture
def lenient():
    """A JAX as users have it, in all threads: Keras adds a vector to arrays of any rank."""
    jax.config.update("jax_numpy_rank_promotion", "allow")
    yield
    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def nothing_loaded():
    keras_backbone._arrays.cache_clear()
    yield
    keras_backbone._arrays.cache_clear()


def assert_same(params, network):
    arrays = [array for layer in params.values() for array in layer.values()]
    wanted = [np.asarray(x.value) for x in network.variables if x.dtype == "float32"]
    key = lambda array: (array.shape, array.tobytes())  # noqa: E731
    assert sorted(map(key, arrays)) == sorted(map(key, wanted))


@pytest.mark.parametrize(
    "name",
    [
        name if name == SMALL else pytest.param(name, marks=pytest.mark.slow)
        for name in keras_networks.SMALLEST
    ],
)
def test_every_layer_equals_that_of_keras(name, tmp_path, lenient):
    size = keras_networks.SMALLEST[name]
    network = keras_networks.create(name, size)
    network.save_weights(tmp_path / "all.weights.h5")
    backbone = build(BACKBONES[name], size)
    params = backbone.load(str(tmp_path / "all.weights.h5"))
    assert_same(params, network)
    pictures = np.random.default_rng(1).normal(0, 1, (2, size, size, 3)).astype(np.float32)
    layers = {operation.name: operation.output for operation in network.operations[1:]}
    wanted = keras.Model(network.input, layers).predict(pictures, verbose=0)
    assert list(backbone.outputs) == list(layers)
    trunk = backbone.trunk(backbone.blocks)
    whole = jax.jit(trunk.apply)({"params": params}, pictures)
    assert set(whole) == set(layers)
    for block in backbone.blocks:
        found = np.asarray(whole[block.name])
        assert found.shape[-1] == block.channels
        assert block.height == (found.shape[1] if found.ndim == 4 else 0)
        scale = np.abs(wanted[block.name]).max()
        np.testing.assert_allclose(found, wanted[block.name], atol=3e-5 * scale + 1e-6)
    cuts = [number for number, block in enumerate(backbone.blocks, 1) if block.is_cut][:-1]
    cut, highest = cuts[len(cuts) // 2], backbone.outputs[-1]
    below = whole[backbone.outputs[cut - 1]]
    used = {name: params[name] for block in backbone.blocks[cut:] for name in block.layers}
    above = jax.jit(trunk.apply, static_argnums=2)({"params": used}, below, cut + 1)
    assert set(above) == set(backbone.outputs[cut - 1 :])
    scale = np.abs(whole[highest]).max()
    np.testing.assert_allclose(above[highest], whole[highest], atol=3e-5 * scale)
    name = backbone.outputs[cut]  # of a single layer, too
    alone = trunk.apply({"params": params}, below, cut + 1, cut + 1)[name]
    np.testing.assert_allclose(alone, whole[name], atol=1e-4 * np.abs(whole[name]).max())


@pytest.mark.slow
@pytest.mark.parametrize("name", APPLICATIONS)
def test_sizes_are_those_of_keras(name):
    function, size, _ = APPLICATIONS[name]
    tolerant = jax.numpy_rank_promotion("allow")  # which layers of Keras' own rely on
    with tolerant, keras.StatelessScope(initialize_variables=False):
        model = getattr(keras.applications, function)(weights=None)
    any_size = (None, None, 3)  # of MobileNetV3, whose documentation says 224
    own = any_size if "MobileNetV3" in function else (size, size, 3)
    assert model.input_shape == (None, *own)


def test_layers_have_the_names_of_a_new_process_whatever_was_built_before():
    keras.layers.Conv2D(1, 1)  # takes the name "conv2d"
    names = build(BACKBONES["xception"], 71).outputs
    assert {"block1_conv1", "conv2d", "conv2d_3", "add_11"} <= {*names}
    assert "conv2d_4" not in names


def test_the_policy_of_other_programs_stays():
    before = keras.config.dtype_policy().name
    assert keras_backbone.graph("MobileNet", 32, False, "bfloat16").dtype_policy.name != before
    assert keras.config.dtype_policy().name == before


def test_a_cut_is_read_by_all_that_lies_above():
    blocks = {block.name: block for block in build(BACKBONES[SMALL], 32).blocks}
    assert blocks["block_2_add"].is_cut
    assert not blocks["block_2_expand"].is_cut  # beside it runs what is added
    assert blocks["block_2_expand_BN"].layers == (
        "block_2_expand_BN",
        "block_2_expand_BN_statistics",
    )


def test_layers_above_the_mean_belong_to_the_size_of_the_network():
    whole = build(BACKBONES[SMALL], 224, ("predictions",))
    assert whole.blocks[-1].name == "predictions"
    assert whole.blocks[-1].channels == 1000
    assert refused_field(build, BACKBONES[SMALL], 96, ("predictions",)) == "picture.size"


def test_pictures_may_be_too_small():
    assert refused_field(build, BACKBONES["inception_v3"], 64) == "picture.size"


@pytest.mark.parametrize(
    ("field", "value", "nearest"),
    [
        ("gates", ("block_12_add", "out_rely"), "out_relu"),
        ("gates", ("out_relu", "global_average_pooling2d"), "Conv_1_bn"),  # no map
        ("freeze", "block_12_expand", "block_11_add"),  # no cut
    ],
)
def test_an_unknown_layer_is_told_with_the_nearest(field, value, nearest):
    config = tiny.config()
    config.model.backbone, config.picture.preprocessing = SMALL, "tf"
    config.model.gates = ("block_12_add", "out_relu")
    config.model[field] = value
    on_pictures.check(config, extract.settings(config))
    with pytest.raises(ConfigError, match=nearest) as raised:
        on_pictures.check_built(config)
    assert raised.value.field == f"model.{field}"


@pytest.mark.parametrize("name", ["older.h5", pytest.param("whole.keras", marks=pytest.mark.slow)])
def test_files_with_the_classifier_are_read_too(name, tmp_path, capsys):
    whole = keras_networks.create(SMALL, 224, include_top=True)
    whole.save(tmp_path / name)
    params = build(BACKBONES[SMALL], 32).load(str(tmp_path / name))
    wanted = whole.get_layer("Conv_1").kernel.value
    np.testing.assert_array_equal(params["Conv_1"]["kernel"], wanted)
    assert str(tmp_path / name) in capsys.readouterr().out


def test_other_files_are_refused(file, tmp_path):
    load = build(BACKBONES[SMALL], 32).load
    with pytest.raises(FileNotFoundError, match="there is no file"):
        load(str(tmp_path / "none.h5"))
    (tmp_path / "weights.txt").write_text("")
    with pytest.raises(ValueError, match=r"weights\.txt"):
        load(str(tmp_path / "weights.txt"))
    (tmp_path / "damaged.weights.h5").write_bytes(file.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"damaged\.weights\.h5 does not hold MobileNetV2"):
        load(str(tmp_path / "damaged.weights.h5"))
    with pytest.raises(ValueError, match="does not hold MobileNet with"):
        build(BACKBONES["mobilenet"], 32).load(str(file))
    (tmp_path / "infinite.weights.h5").write_bytes(file.read_bytes())
    with h5py.File(tmp_path / "infinite.weights.h5", "r+") as root:
        root["layers/conv2d/vars/0"][0] = np.inf
    with pytest.raises(ValueError, match="not finite in the layer Conv1"):
        load(str(tmp_path / "infinite.weights.h5"))


def test_published_weights_are_read_from_the_cache_of_keras(
    file, nothing_loaded, monkeypatch, capsys
):
    get_file = sys.modules["keras.src.utils.file_utils"]
    monkeypatch.setattr(get_file, "get_file", lambda *_, **__: str(file))
    backbone = build(BACKBONES[SMALL], 64)
    pretrained.check(backbone, "")
    one, other = backbone.load(""), backbone.load(str(file))
    jax.tree.map(np.testing.assert_array_equal, one, other)
    config = tiny.config()
    config.model.backbone = SMALL
    arrays = {f"{name}/{kind}": x for name, layer in one.items() for kind, x in layer.items()}
    digest = hashlib.sha256(safetensors.numpy.save(arrays)).hexdigest()
    assert made(config, 1.0, tiny.corpus(1))["weights"] == f"sha256:{digest}"
    assert capsys.readouterr().out.count("from Keras' cache") == 1


@pytest.mark.parametrize("error", [Exception("URL fetch failure"), TimeoutError()])
def test_weights_that_cannot_be_had_are_told_with_their_address(
    error, nothing_loaded, monkeypatch, tmp_path
):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(sys.modules["keras.src.utils.file_utils"], "get_file", fail)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    with pytest.raises(FileNotFoundError) as raised:
        build(BACKBONES[SMALL], 32).load("")
    reason = str(error) or "TimeoutError"
    for part in ("https://", reason, f"{tmp_path}/models", "--config.weights"):
        assert part in str(raised.value)


def test_keras_on_another_library_or_without_keras(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    with pytest.raises(ValueError, match="KERAS_BACKEND"):
        keras_backbone.import_keras()
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(ValueError, match=r"requirements-keras\.txt"):
        keras_backbone.import_keras()

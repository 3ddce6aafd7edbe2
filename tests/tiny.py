"""A VGG16 of few channels and layers, a corpus of a few pictures, and a config that fits both."""

import contextlib
import dataclasses
import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import h5py
import jax
import ml_collections
import numpy as np

from configs import base
from ds_jax.data.corpus import Corpus, Utterance
from ds_jax.data.folds import Fold
from ds_jax.data.labels import LABELS
from ds_jax.features import extract
from ds_jax.models import pretrained as vgg16_weights
from ds_jax.models import vgg16
from ds_jax.models.backbones import BACKBONES
from ds_jax.models.create import create_network
from ds_jax.runtime.files import CHECKSUM, seal
from ds_jax.training import loop, step
from ds_jax.training.checkpoints import save_model
from ds_jax.training.loop import TrainingSetup, create_setup

CHANNELS = (4, 6, 8, 16, 16)
BLOCKS = tuple((channels, 1) for channels in CHANNELS)  # one convolution, which compiles sooner
UNITS = 24  # of fc1 and fc2
NARROW = vgg16.create(BLOCKS, UNITS)

USES = {
    "mlr": lambda config: base.use_mlr(config, "mfcc"),
    "svc": lambda config: base.use_svc(config, "mfcc", "linear"),
    "ridge": lambda config: base.use_ridge(config, "mfcc"),
    "xgboost": lambda config: base.use_xgboost(config, "mfcc"),
    "lstm": lambda config: base.use_lstm(config, "mfcc"),
    "ffnn": lambda config: base.use_ffnn(config, "mfcc"),
    "ds_svc": base.use_ds_svc,
    "ds_ridge": base.use_ds_ridge,
    "ds_fc": base.use_ds_fc,
    "ds_am_statistics": base.use_ds_am_statistics,
    "ds_am": lambda config: None,
}


@contextlib.contextmanager
def narrow_vgg16(size: int = 224) -> Iterator[None]:
    """Puts `NARROW` in VGG16's place; its fc1 fits pictures of `size` pixels alone."""
    with mock.patch.dict(BACKBONES, vgg16=dataclasses.replace(NARROW, size=size)):
        yield


@contextlib.contextmanager
def given_weights() -> Iterator[None]:
    """Gives a run `pretrained` in place of a file or a download, where a fixture cannot."""
    load = mock.patch.object(vgg16_weights, "load", side_effect=lambda *_, **__: pretrained())
    # Whoever runs the tests may have downloaded the published weights.
    with load, mock.patch.object(vgg16_weights, "cached", return_value=""):
        yield


def compute_as_on(platform: str, monkeypatch) -> None:
    """Lets networks compute on this CPU what they compute on another kind of device."""

    def choose(*arguments, default, **branches):
        return branches.get(platform, default)(*arguments)

    monkeypatch.setattr(jax.lax, "platform_dependent", choose)


def parameter_count(params: dict) -> int:
    """Numbers in a tree of arrays."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def pretrained(side: int = 2, seed: int = 0) -> dict:
    """Weights for all layers that keep the signal's size; `side` is that of block5_pool."""
    rng = np.random.default_rng(seed)
    shapes, channels = {}, 3
    for block, (width, count) in enumerate(BLOCKS, start=1):
        for index in range(1, count + 1):
            shapes[f"block{block}_conv{index}"] = (3, 3, channels, width)
            channels = width
    shapes |= {"fc1": (side * side * channels, UNITS), "fc2": (UNITS, UNITS)}
    params = {}
    for name, shape in shapes.items():
        kernel = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32)
        params[name] = {"kernel": kernel, "bias": np.zeros(shape[-1], np.float32)}
    params["block1_conv1"]["kernel"] /= 64  # pixels are that large
    return params


def write_weights(path: Path) -> Path:
    """Writes random weights of VGG16's shapes, without fc layers, in the Keras file's layout."""
    rng, channels = np.random.default_rng(0), 3
    with h5py.File(path, "w") as file:
        for block, (width, count) in enumerate(vgg16.BLOCKS, start=1):
            for index in range(1, count + 1):
                name = f"block{block}_conv{index}"
                kernel = rng.standard_normal((3, 3, channels, width), np.float32)
                group = file.create_group(name)
                group[f"{name}_W_1:0"] = kernel * np.sqrt(2 / (9 * channels))
                group[f"{name}_b_1:0"] = np.zeros(width, np.float32)
                channels = width
    return path


def utterance(
    name: str, label: str = "ANGER", speaker: str = "s0", sentence: str = "t0", **fields
) -> Utterance:
    """An utterance of one second of whose fields a test names what matters to it."""
    made = Utterance(name, label, speaker, "unknown", sentence, "normal", 1.0)
    return dataclasses.replace(made, **fields)


def utterances(speakers: int, sentences: int) -> list[Utterance]:
    """Every speaker says every sentence once, `s0t0` and so on, with labels in turn."""
    return [
        utterance(f"s{s}t{t}", LABELS[(s + t) % 7], f"s{s}", f"t{t}")
        for s in range(speakers)
        for t in range(sentences)
    ]


def corpus(utterances: int = 16, windows: int = 1, canvas: int = 48, seed: int = 0) -> Corpus:
    """Noise with labels in turn; every utterance has `windows` pictures."""
    rng = np.random.default_rng(seed)
    known = tuple(
        Utterance(f"u{i:02}", LABELS[i % 7], f"s{i % 3}", "unknown", "", "normal", 1.0)
        for i in range(utterances)
    )
    coarse = rng.integers(0, 256, (utterances * windows, 4, 4), np.uint8)
    pictures = coarse.repeat(canvas // 4, axis=1).repeat(canvas // 4, axis=2)
    owners = np.arange(utterances, dtype=np.int32).repeat(windows)
    return Corpus("tiny", known, pictures, owners)


def with_digests(of: Corpus, *others: str) -> Corpus:
    """The same corpus with digests of its recordings; some have another one."""
    utterances = tuple(
        dataclasses.replace(u, digest=("another " if u.name in others else "") + u.name)
        for u in of.utterances
    )
    return dataclasses.replace(of, utterances=utterances)


def timelines(of: Corpus, seed: int = 0) -> Corpus:
    """The same corpus with timelines of 32 bands and of several widths, padded with 0."""
    rng = np.random.default_rng(seed)
    inputs = [
        rng.integers(1, 256, (32 // 8, 1 + width // 16), np.uint8).repeat(8, 0).repeat(16, 1)
        for width in rng.integers(64, 200, len(of.inputs))
    ]
    return dataclasses.replace(of, inputs=extract.stack(inputs))


def fold(train_side: range, dev: range, test: range) -> Fold:
    """A fold of utterances by their numbers."""
    return Fold(*(tuple(f"u{i:02}" for i in side) for side in (train_side, dev, test)))


def config(system: str = "ds_am") -> ml_collections.ConfigDict:
    """The base config, on small pictures and for few and fast epochs."""
    config = base.get_config()
    if system == "ds_fc":
        base.use_ds_fc(config)
        config.model.head = "gap"
    config.picture.canvas, config.picture.size = 48, 64
    config.train.batch_size, config.train.epochs = 8, 2
    config.train.pretrained_learning_rate, config.train.new_learning_rate = 1e-3, 1e-2
    return config


def run_config(**fields) -> ml_collections.ConfigDict:
    """A config of DS-AM on three folds of speakers for one epoch, all but block5 frozen.

    Args:
        fields: Others by their full names, as in `run_config(**{"train.epochs": 3})`.
    """
    made = config()
    made.corpus = "tiny"
    made.folds.protocol, made.folds.count = "speakers", 3
    made.model.freeze, made.train.epochs = "block4", 1
    made.update_from_flattened_dict(fields)
    return made


def state(setup: TrainingSetup, seed: int = 0) -> step.TrainState:
    """The network as training begins with it."""
    return step.create_state(
        create_network(setup.config),
        setup.optimiser,
        setup.pretrained,
        jax.random.key(seed),
        {},
    )


def train_fold(setup: TrainingSetup, number: int, fold: Fold, workdir: Path):
    """Trains one fold; returns what its model predicts for the test split."""
    return dict(loop.train_folds(setup, {number: fold}, workdir))[number]


def save(directory: Path, variables: dict, config: ml_collections.ConfigDict) -> None:
    """Writes a finished model of no fold in particular."""
    card = {"config": config.to_dict(), "fold": "", "trained": list(LABELS)}
    card |= {"epoch": 1, "history": []}
    save_model(directory, variables, card)


def setup(config: ml_collections.ConfigDict, of: Corpus | None = None) -> TrainingSetup:
    """Training on the tiny corpus, or on another."""
    return create_setup(config, of or corpus(), pretrained())


def tamper(path: Path, change: Callable[[dict], None]) -> None:
    """Changes an object of JSON, and its checksum with it, as who wants to be believed does."""
    content = json.loads(path.read_text())
    del content[CHECKSUM]
    change(content)
    path.write_text(json.dumps(seal(content)))


def make(system: str) -> tuple[ml_collections.ConfigDict, Corpus]:
    """A config of few and fast epochs, and a corpus that suits it."""
    made, inputs = config(), corpus(42)
    USES[system](made)
    made.corpus = "tiny"
    made.folds.protocol, made.folds.count = "speakers", 3
    if "train" in made:
        made.train.epochs, made.train.batch_size = 2, 8
    if system == "ds_fc":
        made.model.head = "gap"
    if system in ("ds_am_statistics", "ds_ridge"):
        made.picture.canvas, made.picture.size = 227, 224  # which do not apply
        made.picture.mel_bands, inputs = 32, timelines(inputs)
    if system == "lstm":
        made.model.units = (16,)  # one layer, which compiles sooner
    if system == "xgboost":
        made.model.trees = 5
    if "features" in made:
        inputs = dataclasses.replace(inputs, inputs=vectors(inputs))
    return made, inputs


def vectors(corpus):
    """float32 [n, 60]: noise around a place for each label."""
    places = np.random.default_rng(0).normal(0, 1, (len(LABELS), 60))
    noise = np.random.default_rng(1).normal(0, 0.5, (len(corpus.inputs), 60))
    return (places[corpus.labels] + noise).astype(np.float32)


def he_scaled(layers: list) -> dict:
    """Draws weights that keep the signal's size through Keras' layers, and sets them there."""
    rng = np.random.default_rng(0)
    params = {}
    for layer in layers:
        if not layer.weights:
            continue
        shape = tuple(layer.kernel.shape)
        kernel = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape).astype(np.float32)
        bias = rng.normal(0, 0.1, shape[-1]).astype(np.float32)
        layer.set_weights([kernel, bias])
        params[layer.name] = {"kernel": kernel, "bias": bias}
    return params


def free_port() -> int:
    """A port of this machine that nobody uses."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def fold_times(workdir: Path) -> dict[Path, int]:
    """When the predictions of each finished fold were written."""
    return {path: path.stat().st_mtime_ns for path in workdir.glob("fold_*/predictions.csv")}

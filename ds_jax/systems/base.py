"""The systems behind one interface: each is fitted on a fold, and judges what it has not seen."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import ml_collections
import numpy as np

from ds_jax import config as configuration
from ds_jax.data import folds, leakage
from ds_jax.data.corpus import Corpus
from ds_jax.evaluation.predictions import Predicted
from ds_jax.features import representation
from ds_jax.features.extract import SETS
from ds_jax.models import baselines, deep_spectrum, preprocessing
from ds_jax.models import pretrained as weights
from ds_jax.models.create import create_network
from ds_jax.runtime import processes, progress
from ds_jax.runtime.files import write_text
from ds_jax.runtime.workdir import CHECKPOINTS, METRICS, fold_directory
from ds_jax.systems import classifiers as classical
from ds_jax.systems import deep_features, network
from ds_jax.training import inference, loop

# As the config and as reports call them.
SYSTEMS = deep_spectrum.SYSTEMS | baselines.SYSTEMS | classical.SYSTEMS
INNER_FOLDS = 5  # of the training side, for what a classifier chooses

# What a system chooses besides its parameters.
CHOOSES = dict.fromkeys((*deep_spectrum.SYSTEMS, *baselines.SYSTEMS), "epoch")
CHOOSES |= dict.fromkeys(("svc", "ds_svc"), "C")

FitFolds = Callable[[Mapping[int, folds.Fold], Path], Iterator[tuple[int, Predicted | None]]]


def title(config: Mapping) -> str:
    """What reports call a config's system, for example "DS-AM" or "SVC on MSF"."""
    name = SYSTEMS[config["system"]]
    if config["system"] == "ds_svc":
        layers = "+".join(layer.removesuffix("_pool") for layer in config["model"]["layers"])
        return f"{name} ({layers})"
    return f"{name} on {SETS[config['features']].title}" if "features" in config else name


def check(config: ml_collections.ConfigDict) -> None:
    """Checks all that a config says, before any work; files that it names are not looked at.

    Raises:
        ValueError: There is no such system; a field is missing or unknown; or a field, or two
            together, have an impossible value.
    """
    if config.get("system") not in tuple(SYSTEMS):
        raise ValueError(f"system={config.get('system')!r} is not one of {', '.join(SYSTEMS)}")
    on_features = config.system in baselines.SYSTEMS or (
        config.system in classical.SYSTEMS and config.system != "ds_svc"
    )
    wanted = "features" if on_features else "picture"
    if wanted not in config:
        raise ValueError(
            f"system={config.system!r} needs the field {wanted}: start from a config of this system"
        )
    configuration.check(config)
    folds.check(config.folds, config.select_on)
    settings = representation.settings(config)
    if on_features and len(settings.shape) > 1 and config.system != "lstm":
        raise ValueError(
            f"features={config.features!r} are sequences, which system={config.system!r} cannot "
            "read: take system='lstm', or features without frames"
        )
    if config.system not in classical.SYSTEMS:
        create_network(config)
        return
    classical.check(config.system, config.model)
    if config.select_on == "test":
        raise ValueError(
            "select_on='test' lets the test fold choose the epoch, and "
            f"system={config.system!r} has none: take select_on='dev'"
        )
    if config.system == "ds_svc":
        preprocessing.colour_table(settings.colour_map)
        try:
            deep_features.check(config.model.layers, settings.size)
        except ValueError as error:
            raise ValueError(f"model.layers={tuple(config.model.layers)}: {error}") from error


def needs_full_weights(config: ml_collections.ConfigDict) -> bool:
    """Whether a system on pictures needs VGG16's fc1 and fc2."""
    if config.system == "ds_svc":
        return deep_features.needs_full(config.model.layers)
    return config.system == "ds_fc" and config.model.head == "fc"


def chosen(config: ml_collections.ConfigDict, rows: Sequence[Mapping]) -> dict:
    """What was chosen in a fold, from the rows of its metrics.jsonl."""
    match CHOOSES.get(config.system):
        case "epoch":
            return {"epoch": min(rows, key=lambda row: row[f"{config.select_on}_loss"])["epoch"]}
        case "C":
            return {"C": max(rows, key=lambda row: (row["uar"], -row["C"]))["C"]}
    return {}


def create(config: ml_collections.ConfigDict, corpus: Corpus, protocol: str) -> FitFolds:
    """Prepares what all folds share.

    Args:
        config: The run's config.
        corpus: In memory, as `representation.settings` of the config says.
        protocol: That the folds were made by.

    Returns:
        A function of folds by their numbers, and of the workdir that their models and metrics go
        to. It yields a fold's number and what the system that was fitted on it says of its test
        utterances, ordered by name, or None without any; of several processes the one that is to
        write it does.
    """
    if config.system in classical.SYSTEMS:
        inputs = _vectors(config, corpus.inputs, corpus.directory)
        return functools.partial(_fit_classifiers, config, corpus, inputs, protocol)
    pretrained = {}
    if config.system in deep_spectrum.SYSTEMS:
        pretrained = weights.load(config.weights, full=needs_full_weights(config))
    return functools.partial(loop.train_folds, loop.create_setup(config, corpus, pretrained))


def load_config(checkpoints: Sequence[Path]) -> ml_collections.ConfigDict:
    """Reads the config that the models in some folds' `checkpoints` folders were fitted by.

    Raises:
        FileNotFoundError: There is no model in a folder.
        ValueError: A model is of another label set, or of another experiment than the first; or
            a field of their config is impossible.
    """
    found = [
        ml_collections.ConfigDict(classical.describe(folder)["config"])
        if classical.is_saved(folder)
        else network.load_config(folder)
        for folder in checkpoints
    ]
    for folder, other in zip(checkpoints, found, strict=True):
        if different := configuration.difference(found[0], other):
            raise ValueError(
                f"{checkpoints[0]} and {folder} are models of two experiments: {different} here"
            )
    try:
        check(found[0])
    except ValueError as error:
        raise ValueError(f"the config of the model in {checkpoints[0]}: {error}") from error
    return found[0]


def check_folds(checkpoints: Mapping[Path, str]) -> None:
    """Checks that models are of the folds that they lie in.

    Args:
        checkpoints: Some folds' `checkpoints` folders, and of each fold `leaks.fold_digest`.

    Raises:
        FileNotFoundError: There is no model in a folder.
        ValueError: A model is of another fold, or was fitted on other recordings.
    """
    for folder, digest in checkpoints.items():
        fitted = classical.is_saved(folder)
        found = classical.describe(folder)["fold"] if fitted else network.load_fold(folder)
        leakage.check_fold(folder, found, digest)


def predict(
    rows: Mapping[Path, np.ndarray], inputs: np.ndarray, directory: Path | None = None
) -> Iterator[tuple[Path, Predicted]]:
    """Lets the models of a run judge inputs, one model in memory at a time.

    Args:
        rows: For each fold's `checkpoints` folder the inputs that its model judges, int [n].
        inputs: Represented as the run's config says, see `corpus.Corpus`.
        directory: Where what is computed from the inputs may be kept.

    Yields:
        The folder and what its model says of its rows.

    Raises:
        FileNotFoundError: A folder holds no model.
        ValueError: A model is damaged, or of another label set.
    """
    if not classical.is_saved(next(iter(rows))):
        yield from network.predict_from_checkpoints(rows, inputs)
        return
    vectors = None
    for checkpoints, own_rows in rows.items():
        config, classifier = classical.load(checkpoints)
        if vectors is None:  # all folds of a run read the same
            vectors = _vectors(ml_collections.ConfigDict(config), inputs, directory)
        yield checkpoints, Predicted(classifier.probabilities(vectors[own_rows]), {}, {})


def load_ensemble(
    checkpoints: Sequence[Path],
) -> Callable[[np.ndarray, int], Callable[[], Predicted]]:
    """Loads the models of a run, all at once, to judge batch after batch.

    Args:
        checkpoints: The `checkpoints` folders of a run's folds, one or more.

    Returns:
        A function of inputs, represented as the run's config says, and of the number of rows that
        they are padded to. It begins to predict and returns a function that waits for the end:
        the mean of what the models say.

    Raises:
        FileNotFoundError: A folder holds no model.
        ValueError: A model is damaged, or of another label set.
    """
    if not classical.is_saved(checkpoints[0]):
        return network.load_ensemble(checkpoints)
    loaded = [classical.load(directory) for directory in checkpoints]
    config, classifiers = ml_collections.ConfigDict(loaded[0][0]), [c for _, c in loaded]
    extract = None
    if config.system == "ds_svc":
        layers = tuple(config.model.layers)
        pretrained = weights.load(config.weights, full=deep_features.needs_full(layers))
        settings = representation.settings(config)
        extract = deep_features.create_extractor(layers, settings, pretrained)

    def predict(inputs, size):
        extracted = extract(inputs, size) if extract else {}

        def wait():
            vectors = np.concatenate(list(extracted().values()), axis=1) if extract else inputs
            return inference.mean(
                [Predicted(c.probabilities(vectors), {}, {}) for c in classifiers]
            )

        return wait

    return predict


def _vectors(
    config: ml_collections.ConfigDict, inputs: np.ndarray, directory: Path | None
) -> np.ndarray:
    """float32 [n, d]: what a classifier reads."""
    if config.system != "ds_svc":
        return inputs
    layers, settings = tuple(config.model.layers), representation.settings(config)
    pretrained = weights.load(config.weights, full=deep_features.needs_full(layers))
    return deep_features.compute(inputs, layers, settings, pretrained, directory)


def _fit_classifiers(
    config: ml_collections.ConfigDict,
    corpus: Corpus,
    inputs: np.ndarray,
    protocol: str,
    divided: Mapping[int, folds.Fold],
    workdir: Path,
) -> Iterator[tuple[int, Predicted | None]]:
    """Fits a classifier on each fold; every process fits all, and the first writes them."""
    shown = processes.is_first_process()
    for number in progress.bar("fitting", len(divided), "folds", divided, shown):
        fold, directory = divided[number], fold_directory(workdir, number)
        judgement = _fit_classifier(config, corpus, inputs, protocol, number, fold, directory)
        if processes.is_first_process():
            yield number, judgement


def _fit_classifier(
    config: ml_collections.ConfigDict,
    corpus: Corpus,
    inputs: np.ndarray,
    protocol: str,
    number: int,
    fold: folds.Fold,
    directory: Path,
) -> Predicted | None:
    """Fits on train and dev together: without epochs there is nothing for dev to choose."""
    rows = corpus.rows_of(fold.train + fold.dev)
    leakage.check_rows(f"fold {number}: the fit", rows, corpus, fold.splits, ("train", "dev"))
    inner = []
    for held_out in folds.inner_folds(corpus.utterances, fold, protocol, INNER_FOLDS, config.seed):
        out = np.isin(rows, corpus.rows_of(held_out))
        equal = np.isin(rows, corpus.rows_of(leakage.same_recordings(held_out, corpus.utterances)))
        inner.append((np.flatnonzero(~equal), np.flatnonzero(out)))
    labels = corpus.labels
    classifier = classical.fit(
        config.system, config.model, inputs[rows], labels[rows], inner, config.seed
    )
    if processes.is_first_process():
        lines = "".join(json.dumps(row) + "\n" for row in classifier.tried)
        write_text(directory / METRICS, lines)
        digest = leakage.fold_digest(number, fold.splits, corpus.digests)
        classical.save(directory / CHECKPOINTS, classifier, config.to_dict(), digest)
    chosen = ", ".join(f"{name} {value:.4g}" for name, value in classifier.settings.items())
    processes.say(
        f"fold {number}: fitted on {len(rows)} of {len(inputs)}{chosen and ': ' + chosen}"
    )
    if not fold.test:
        return None
    tested = corpus.rows_of(fold.test)
    judgement = Predicted(classifier.probabilities(inputs[tested]), {}, {})
    return inference.average_windows(judgement, corpus, tested)

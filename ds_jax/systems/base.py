"""The systems behind one protocol: each is fitted on folds, saved, and predicts."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import ml_collections
import numpy as np

from ds_jax import config as configuration
from ds_jax.data import folds, leakage
from ds_jax.data.corpus import Corpus
from ds_jax.evaluation.predictions import Predicted
from ds_jax.features.extract import SETS
from ds_jax.runtime.errors import ConfigError, one_of
from ds_jax.systems.classifier_system import ClassifierSystem
from ds_jax.systems.classifiers import MLR, SVC, XGBoost
from ds_jax.systems.deep_features import DeepSpectrumSVC
from ds_jax.systems.network import NetworkSystem
from ds_jax.training.checkpoints import read_card

CARD_FIELDS = ("config", "labels", "fold")  # on the card of every system's model

# Starts with inputs, padded to a number of rows; the result waits for the predictions.
Predict = Callable[[np.ndarray, int], Callable[[], Predicted]]
FitFolds = Callable[[Mapping[int, folds.Fold], Path], Iterator[tuple[int, Predicted | None]]]


class System(Protocol):
    """What is fitted on folds and predicts; the functions below describe the methods.

    Attributes:
        title: The system's name in reports.
        reads: The field of the config that describes its inputs: "picture" or "features".
        chooses: What it chooses besides its parameters: "epoch", "C" or "".
        exports: Whether JAX alone can compute its predictions from a waveform.
    """

    title: str
    reads: str
    chooses: str
    exports: bool

    def check(self, config: ml_collections.ConfigDict) -> None: ...

    def fit(self, config: ml_collections.ConfigDict, corpus: Corpus, protocol: str) -> FitFolds: ...

    def predict(
        self, rows: Mapping[Path, np.ndarray], inputs: np.ndarray, directory: Path | None
    ) -> Iterator[tuple[Path, Predicted]]: ...

    def load_ensemble(self, checkpoints: Sequence[Path]) -> Predict: ...


SYSTEMS: dict[str, System] = {
    "ds_am": NetworkSystem("DS-AM", "picture"),
    "ds_am_statistics": NetworkSystem("DS-AM with statistics", "picture"),
    "ds_fc": NetworkSystem("DS-FC", "picture"),
    "lstm": NetworkSystem("LSTM", "features"),
    "ffnn": NetworkSystem("FFNN", "features"),
    "mlr": ClassifierSystem("MLR", MLR),
    "svc": ClassifierSystem("SVC", SVC),
    "xgboost": ClassifierSystem("XGBoost", XGBoost),
    "ds_svc": DeepSpectrumSVC("DS-SVC", SVC),
}


def title(config: Mapping) -> str:
    """Returns the name of a config's system in reports, for example "DS-AM" or "SVC on MSF"."""
    name = SYSTEMS[config["system"]].title
    if "features" in config:
        return f"{name} on {SETS[config['features']].title}"
    layers = [layer.removesuffix("_pool") for layer in config["model"].get("layers", ())]
    return f"{name} ({'+'.join(layers)})" if layers else name


def check(config: ml_collections.ConfigDict) -> None:
    """Checks all fields of a config, before any work, but not the files that they name.

    Raises:
        ConfigError: There is no such system, or a field is missing or has an impossible value.
        ValueError: Two fields do not agree.
    """
    system = SYSTEMS.get(config.get("system"))
    if system is None:
        raise ConfigError("system", config.get("system"), one_of(SYSTEMS))
    if system.reads not in config:
        allowed = f"given for system={config.system!r}: start from a config of this system"
        raise ConfigError(system.reads, None, allowed)
    configuration.check_values(config)
    folds.check(config.folds, config.select_on)
    system.check(config)


def chosen(config: ml_collections.ConfigDict, rows: Sequence[Mapping]) -> dict:
    """Returns what was chosen in a fold, from the rows of its metrics.jsonl."""
    match SYSTEMS[config.system].chooses:
        case "epoch":
            if config.select_on == "none":
                return {"epoch": rows[-1]["epoch"]}
            return {"epoch": min(rows, key=lambda row: row[f"{config.select_on}_loss"])["epoch"]}
        case "C":
            return {"C": max(rows, key=lambda row: (row["uar"], -row["C"]))["C"]}
    return {}


def create(config: ml_collections.ConfigDict, corpus: Corpus, protocol: str) -> FitFolds:
    """Prepares what all folds share.

    Args:
        config: The run's config.
        corpus: The corpus, in memory, as `extract.settings` of the config says.
        protocol: The protocol that the folds were made by.

    Returns:
        A function of folds by their numbers, and of the workdir that their models and metrics go
        to. It yields a fold's number and the predictions of the system that was fitted on it for
        its test utterances, ordered by name, or None without any; of several processes the one
        that is to write them yields them.
    """
    return SYSTEMS[config.system].fit(config, corpus, protocol)


def load_config(checkpoints: Sequence[Path]) -> ml_collections.ConfigDict:
    """Reads the config that the models in some folds' `checkpoints` folders were fitted by.

    Raises:
        FileNotFoundError: There is no model in a folder.
        ValueError: A model is of another label set, or of another experiment than the first; or
            a field of their config is impossible or missing.
    """
    configs = [
        ml_collections.ConfigDict(read_card(folder, CARD_FIELDS)["config"])
        for folder in checkpoints
    ]
    for folder, config in zip(checkpoints, configs, strict=True):
        if different := configuration.difference(configs[0], config):
            raise ValueError(
                f"{checkpoints[0]} and {folder} are models of two experiments: {different} here"
            )
    try:
        check(configs[0])
    except ValueError as error:
        raise ValueError(f"the config of the model in {checkpoints[0]}: {error}") from error
    except (AttributeError, KeyError, TypeError) as error:  # no schema checks a stranger's config
        raise ValueError(
            f"the config of the model in {checkpoints[0]} has other fields than this program's: "
            f"{error}"
        ) from error
    return configs[0]


def check_folds(checkpoints: Mapping[Path, str]) -> None:
    """Checks that models belong to the folds that they lie in.

    Args:
        checkpoints: Some folds' `checkpoints` folders, and `leakage.fold_digest` of each fold.

    Raises:
        FileNotFoundError: There is no model in a folder.
        ValueError: A model is of another fold, or was fitted on other recordings.
    """
    for folder, digest in checkpoints.items():
        leakage.check_fold(folder, read_card(folder, CARD_FIELDS)["fold"], digest)


def predict(
    rows: Mapping[Path, np.ndarray], inputs: np.ndarray, directory: Path | None = None
) -> Iterator[tuple[Path, Predicted]]:
    """Predicts inputs with the models of a run, one model in memory at a time.

    Args:
        rows: For each fold's `checkpoints` folder the inputs that its model predicts, int [n].
        inputs: Represented as the run's config says, see `corpus.Corpus`.
        directory: A folder that may keep what is computed from the inputs.

    Returns:
        An iterator of the folders and their models' predictions.

    Raises:
        FileNotFoundError: A folder holds no model.
        ValueError: A model is damaged, or of another label set.
    """
    return _saved_system(next(iter(rows))).predict(rows, inputs, directory)


def load_ensemble(checkpoints: Sequence[Path]) -> Predict:
    """Loads the models of a run, all at once, to predict batch after batch.

    Args:
        checkpoints: The `checkpoints` folders of a run's folds, one or more.

    Returns:
        A function of inputs, represented as the run's config says, and of the number of rows that
        they are padded to. It starts to predict and returns a function that waits for the end and
        returns the mean of the models' predictions.

    Raises:
        FileNotFoundError: A folder holds no model.
        ValueError: A model is damaged, or of another label set.
    """
    return _saved_system(checkpoints[0]).load_ensemble(checkpoints)


def _saved_system(folder: Path) -> System:
    """Returns the system of the model in a fold's `checkpoints` folder, which its card names."""
    return SYSTEMS[read_card(folder, CARD_FIELDS)["config"]["system"]]

"""The systems behind one protocol: each is fitted on folds, saved, and predicts.

Configs are checked here, before any work: this module imports neither JAX nor scikit-learn, which
take seconds to import.
"""

import importlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from ml_collections import ConfigDict

from ds_jax import config as configuration
from ds_jax.data import auxiliary, folds, labels
from ds_jax.data.corpus import Corpus
from ds_jax.evaluation.predictions import Predicted
from ds_jax.features import embeddings, extract, variants
from ds_jax.features.extract import SETS
from ds_jax.models.backbones import BACKBONES
from ds_jax.runtime.errors import ConfigError, check_choice, naming, one_of
from ds_jax.runtime.progress import many
from ds_jax.systems import fields, on_pictures

FitFolds = Callable[[Mapping[int, folds.Fold], Path], Iterator[tuple[int, Predicted | None]]]


class System(NamedTuple):
    """What is known of a system without its libraries.

    Attributes:
        title: The system's name in reports.
        reads: The field of the config that describes its inputs: "picture" or "features".
        module: The module of this package that is its `Implementation`.
        fields: The fields of `config.model`.
        chooses: What it chooses besides its parameters: "epoch", "C" or "".
        sequences: Whether it reads features with frames.
        exports: Whether JAX alone can compute its predictions from a waveform.
        adapts: Whether it can standardise by each speaker's own recordings.
    """

    title: str
    reads: str
    module: str
    fields: tuple[str, ...]
    chooses: str = ""
    sequences: bool = False
    exports: bool = False
    adapts: bool = True


class Implementation(Protocol):
    """The functions of a system's module."""

    def fit(self, config: ConfigDict, corpus: Corpus, protocol: str) -> FitFolds:
        """Prepares what all folds share.

        Args:
            config: The run's config.
            corpus: The corpus, in memory, as `extract.settings` of the config says.
            protocol: The protocol that the folds were made by.

        Returns:
            A function of folds by their numbers, and of the workdir that models and metrics go to.
            It yields a fold's number and its predictions for the test utterances, ordered by name,
            or None without any; of several processes the one that is to write them yields them.
        """

    def predict(
        self, rows: Mapping[Path, np.ndarray], corpus: Corpus
    ) -> Iterator[tuple[Path, Predicted]]:
        """Predicts inputs of a corpus with the models of a run, one model in memory at a time.

        Args:
            rows: For each fold's `checkpoints` folder the rows that its model predicts, int [n].
            corpus: The corpus, in memory, as `extract.settings` of the run's config says.

        Yields:
            The folder and its model's predictions.

        Raises:
            FileNotFoundError: A folder holds no model.
            ValueError: A model is damaged, or of another label set.
        """

    def load_ensemble(
        self, checkpoints: Sequence[Path], enrolled: Any = None
    ) -> Callable[[np.ndarray, int], Callable[[], Predicted]]:
        """Loads the models of a run, all at once, to predict batch after batch.

        Args:
            checkpoints: The folders of the models.
            enrolled: What `load_measure` gives for the speaker's recordings; None if not needed.

        Returns:
            A function of inputs, represented as the run's config says, and of the number of rows
            that they are padded to. It starts to predict and returns a function that waits for the
            end and returns the mean of the models' predictions.

        Raises:
            FileNotFoundError, ValueError: As `predict`.
        """

    def load_measure(self, checkpoints: Sequence[Path]) -> Callable[[np.ndarray, int], Callable]:
        """Loads what measures recordings for an enrolment: a function as `load_ensemble` returns.

        It gives a tree of arrays, which those of other batches are joined to along the first axis.
        """


_NETWORK, _CLASSIFIER, _SVC = "network", "classifier_system", ("kernel", "costs", "scaling")
_TREES = ("trees", "depth", "bins", "learning_rate", "column_share")
_AM = ("gates", "merging", "loss_weights", "freeze")
_STATISTICS = ("heads", "gate", "dropout", "loss_weights", "freeze")
_FC = ("head", "dropout", "freeze")
SYSTEMS = {
    "ds_am": System("DS-AM", "picture", _NETWORK, _AM, "epoch", exports=True, adapts=False),
    "ds_am_statistics": System(
        "DS-AM on timelines", "picture", _NETWORK, _STATISTICS, "epoch", exports=True
    ),
    "ds_fc": System("DS-FC", "picture", _NETWORK, _FC, "epoch", exports=True, adapts=False),
    "lstm": System("LSTM", "features", _NETWORK, ("units", "dense_units"), "epoch", sequences=True),
    "ffnn": System("FFNN", "features", _NETWORK, ("units", "dropout"), "epoch"),
    "mlr": System("MLR", "features", _CLASSIFIER, ()),
    "svc": System("SVC", "features", _CLASSIFIER, _SVC, "C"),
    "ridge": System("Ridge", "features", _CLASSIFIER, _SVC, "C"),
    "xgboost": System("XGBoost", "features", _CLASSIFIER, _TREES),
    "ds_svc": System("DS-SVC", "picture", _CLASSIFIER, ("layers", *_SVC), "C"),
    "ds_ridge": System("DS-ridge", "picture", _CLASSIFIER, ("layers", "pooling", *_SVC), "C"),
}

ENSEMBLE = "ensemble"  # the mean of the systems in `config.members`; see `commands.ensemble`
# The fields that an ensemble and its members have in common, besides `folds`, and `weights` where
# the members are on VGG16; others read files of their own.
SHARED = (
    *("corpus", "classes", "label_map", "synthetic", "adapt"),
    *("trim", "channel", "raw_rate", "variants"),
)


def title(config: Mapping) -> str:
    """Returns the name of a config's system in reports, for example "DS-AM" or "SVC on MSF"."""
    if "members" in config:
        titles = Counter(title(member) for member in config["members"].values())
        counted = (f"{count} {name}" if count > 1 else name for name, count in titles.items())
        merged = "one ridge of" if is_joined(config) else "mean of"
        return f"{merged} {', '.join(counted)}"
    name = SYSTEMS[config["system"]].title
    if "features" in config:
        titled = f"{name} on {SETS[config['features']].title}"
        if config["features"] == extract.EMBEDDINGS:
            chosen = config["embeddings"]
            titled += f" ({embeddings.shown(chosen['model'])}, layer {chosen['layer']})"
        return titled
    layers = config["model"].get("layers", ())
    if (backbone := config["model"].get("backbone", "vgg16")) != "vgg16":
        name += f" on {BACKBONES[backbone].title}"
    else:
        layers = [layer.removesuffix("_pool") for layer in layers]
    pooling = f", {config['model']['pooling']}" if "pooling" in config["model"] else ""
    return f"{name} ({'+'.join(layers)}{pooling})" if layers else name


def is_joined(config: Mapping) -> bool:
    """Tells whether the members of an ensemble are joined as kernels of one ridge."""
    return config.get("merging") == "kernels"


def generates(config: Mapping) -> bool:
    """Tells whether generated pictures train a system's models too."""
    return bool(config.get("generate", {}).get("share"))


def implementation(config: ConfigDict) -> Implementation:
    """Imports the module of a config's system, or of the one ridge of an ensemble."""
    module = "joined" if config.system == ENSEMBLE else SYSTEMS[config.system].module
    return importlib.import_module(f"ds_jax.systems.{module}")


def check(config: ConfigDict) -> None:
    """Checks all fields of a config, before any work, but not the files that they name.

    A `picture.size` of 0 becomes the size that the backbone was trained on.

    Raises:
        ConfigError: There is no such system, a field is missing or has an impossible value, or two
            fields do not agree.
    """
    if config.get("system") == ENSEMBLE:
        _check_members(config)
        return
    check_choice("system", config.get("system"), SYSTEMS)
    system = SYSTEMS[config.system]
    missing = [f"model.{name}" for name in system.fields if name not in config.model]
    if system.reads not in config:
        missing.insert(0, system.reads)
    if missing:
        allowed = f"given for system={config.system!r}: start from a config of this system"
        raise ConfigError(missing[0], None, allowed)
    fields.check(config)
    labels.check(config.classes, config.label_map)
    folds.check(config.folds, config.select_on)
    if system.reads == "picture":
        on_pictures.complete(config)
    settings = extract.settings(config)
    variants.check(config.variants)
    _check_auxiliary(config)
    _check_select_on(config, system)
    if configuration.adapts(config) and not system.adapts:
        adapting = ", ".join(repr(name) for name, each in SYSTEMS.items() if each.adapts)
        raise ConfigError("adapt", config.adapt, f"'none', or take one of system={adapting}")
    if configuration.adapts(config) and generates(config):
        allowed = "0.0, since generated pictures have no speaker to be standardised by"
        raise ConfigError("generate.share", config.generate.share, allowed)
    if configuration.adapts(config) and config.get("train", {}).get("mixup"):
        allowed = "0.0, since a mixed picture has no speaker to be standardised by"
        raise ConfigError("train.mixup", config.train.mixup, allowed)
    if generates(config) and config.parallel == "folds":
        allowed = "'auto' or 'batch': folds with generated pictures go one after the other"
        raise ConfigError("parallel", config.parallel, allowed)
    if system.reads == "picture":
        on_pictures.check(config, settings)
    elif len(settings.shape) > 1 and not system.sequences:
        readers = " or ".join(repr(name) for name, each in SYSTEMS.items() if each.sequences)
        allowed = f"a set without frames, or take system={readers}, which alone reads sequences"
        raise ConfigError("features", settings.set, allowed)


def _check_members(config: ConfigDict) -> None:
    """Checks the members of an ensemble, which are experiments of their own on the same folds."""
    if not config.members:
        raise ConfigError("members", {}, "one config or more, each under a name")
    fields.check(config)
    for name, member in config.members.items():
        group = f"members.{name}"
        if not name.isidentifier():
            raise ConfigError(group, name, "a name of letters, digits and _")
        weights = ("weights",) if on_pictures.shares_weights(member) else ()
        for field in (*SHARED, "folds", *weights):
            if member.get(field) != config.get(field):
                raise ConfigError(
                    f"{group}.{field}", member.get(field), f"{config.get(field)!r}, as {field} is"
                )
        if member.eval_on:
            allowed = "empty: eval_on of the ensemble has all of them tested"
            raise ConfigError(f"{group}.eval_on", tuple(member.eval_on), allowed)
        with naming(f"{group}."):
            check(member)
        if chooses(member) == "epoch" and member.select_on != config.select_on:
            allowed = f"{config.select_on!r}, as select_on is"
            raise ConfigError(f"{group}.select_on", member.select_on, allowed)
    windows = {
        tuple(member.get("picture", {}).get(x, 0.0) for x in ("window", "window_hop"))
        for member in config.members.values()
        if "members" not in member
    }
    if len(windows) > 1:
        raise ConfigError("members", sorted(windows), "of one picture.window and window_hop")
    _check_auxiliary(config)
    names = ("", *config.members) if is_joined(config) else ("",)
    check_choice("emphasis", config.get("emphasis", ""), names)
    if is_joined(config):
        _check_joined(config)
    if chooses(config) != "epoch" and config.select_on != "dev":
        allowed = "'dev', since no member chooses an epoch"
        raise ConfigError("select_on", config.select_on, allowed)


def _check_joined(config: ConfigDict) -> None:
    """Checks that members can be joined as kernels: they are ridges that differ in inputs alone."""
    models = []
    for name, member in config.members.items():
        if member.system not in ("ridge", "ds_ridge"):
            allowed = "'ridge' or 'ds_ridge' where merging is 'kernels'"
            raise ConfigError(f"members.{name}.system", member.system, allowed)
        if member.model.kernel != "linear":
            allowed = "'linear' where merging is 'kernels'"
            raise ConfigError(f"members.{name}.model.kernel", member.model.kernel, allowed)
        if member.get("picture", {}).get("window"):
            allowed = "0.0 where merging is 'kernels'"
            raise ConfigError(f"members.{name}.picture.window", member.picture.window, allowed)
        models.append((tuple(member.model.costs), member.model.scaling))
        if models[-1] != models[0]:
            allowed = "of one model.costs and model.scaling where merging is 'kernels'"
            raise ConfigError("members", tuple(models), allowed)
        if tuple(member.auxiliary) != tuple(config.auxiliary):
            allowed = f"{tuple(config.auxiliary)}, as auxiliary is, where merging is 'kernels'"
            raise ConfigError(f"members.{name}.auxiliary", tuple(member.auxiliary), allowed)
    if configuration.adapts(config):
        raise ConfigError("merging", config.merging, "'mean' where adapt is 'speaker'")


def _check_auxiliary(config: ConfigDict) -> None:
    """Checks `config.auxiliary` against other fields; `datasets.prepare` checks the corpora."""
    names = auxiliary.shares(config.auxiliary, config.corpus)
    every = [auxiliary.shares(x.auxiliary, x.corpus) for x in configuration.experiments(config)]
    if tested := {*config.eval_on}.intersection(set().union(*every)):
        allowed = f"without {', '.join(sorted(tested))}, whose recordings train the models too"
        raise ConfigError("eval_on", tuple(config.eval_on), allowed)
    if not names:
        return
    allowed = ""
    if "train" in config:
        allowed = "(), since a network is trained on the corpus alone; classifiers take others"
    elif "members" in config and not is_joined(config):
        allowed = f"(): members have their own, such as members.{min(config.members)}.auxiliary"
    elif configuration.adapts(config):
        allowed = "(), since adapt='speaker' standardises the speakers of one corpus"
    if allowed:
        raise ConfigError("auxiliary", tuple(config.auxiliary), allowed)


def _check_select_on(config: ConfigDict, system: System) -> None:
    """Checks that what chooses the epoch fits the training."""
    if system.chooses != "epoch":
        allowed, why = ("dev",), "has no epochs to choose from"
    elif configuration.is_scheduled(config.train):
        allowed, why = ("none", "dev"), "has a fixed number of epochs"
    else:
        allowed, why = ("dev", "test"), "chooses an epoch"
    if config.select_on not in allowed:
        allowed = f"{one_of(allowed)}, since system={config.system!r} {why}"
        raise ConfigError("select_on", config.select_on, allowed)


def chooses(config: Mapping) -> str:
    """Returns what a config's system chooses: "epoch", "C" or ""; an ensemble, what members do."""
    if config["system"] != ENSEMBLE:
        return SYSTEMS[config["system"]].chooses
    of_members = {chooses(member) for member in config["members"].values()}
    return next((choice for choice in ("epoch", "C") if choice in of_members), "")


def selected_on(config: Mapping) -> str:
    """Returns the split that chooses the epoch; "none" where no epoch is chosen."""
    return config["select_on"] if chooses(config) == "epoch" else "none"


def chosen(config: ConfigDict, rows: Sequence[Mapping]) -> dict:
    """Returns what was chosen in a fold, from the rows of its metrics.jsonl, if it has any."""
    match chooses(config) if rows else "":
        case "epoch":
            if config.select_on == "none":
                return {"epoch": rows[-1]["epoch"]}
            return {"epoch": min(rows, key=lambda row: row[f"{config.select_on}_loss"])["epoch"]}
        case "C":
            best = max(rows, key=lambda row: row["uar"])  # the first, and so smallest, of equals
            return {name: best[name] for name in ("C", "weight") if name in best}
    return {}


def load_config(checkpoints: Sequence[Path]) -> ConfigDict:
    """Reads the config that the models in some folds' `checkpoints` folders were fitted by.

    Raises:
        FileNotFoundError: There is no model in a folder.
        ValueError: A model is of another label set, or of another experiment than the first; or
            a field of their config is impossible or missing.
    """
    from ds_jax.training.checkpoints import read_card  # here, since it imports JAX

    cards = [read_card(folder) for folder in checkpoints]
    configs = [ConfigDict(configuration.complete(card["config"])) for card in cards]
    for folder, config in zip(checkpoints, configs, strict=True):
        if different := configuration.difference(configs[0], config):
            raise ValueError(
                f"{checkpoints[0]} and {folder} are models of two experiments: {different} here"
            )
    _check_epochs(checkpoints, cards)
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


def _check_epochs(checkpoints: Sequence[Path], cards: Sequence[Mapping]) -> None:
    """Raises where a run was given more epochs, and only some of its folds have trained them."""
    trains = [card["config"].get("train", {}) for card in cards]
    most = max(trains, key=lambda train: train.get("epochs", 0))
    for folder, card, train in zip(checkpoints, cards, trains, strict=True):
        waited = len(card.get("history", ())) - card.get("epoch", 0)
        if train != most and waited < most.get("stop_patience", 0):
            raise ValueError(
                f"{folder} was trained for {many(train['epochs'], 'epoch')}, and other folds of "
                f"the run for up to {most['epochs']}: finish the run first, or name one fold"
            )

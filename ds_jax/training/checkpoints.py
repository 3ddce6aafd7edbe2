"""The finished model of a fold: a file (a network's is of safetensors), and its card of JSON.

Both lie in the fold's `checkpoints` folder, which holds epochs until then, see `epochs`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_collections
import numpy as np
import safetensors.numpy

from ds_jax.data import auxiliary
from ds_jax.data.corpus import Corpus
from ds_jax.features import embeddings, extract
from ds_jax.models.backbones import built, needs_full_weights
from ds_jax.models.create import Variables
from ds_jax.runtime import files, processes
from ds_jax.runtime.workdir import PREDICTIONS

MODEL, CARD = "model.safetensors", "card.json"
BEST = "best.json"  # the card of a model that was finished before its fold was given more epochs
CARD_OF_EARLIER_VERSIONS = "classifier.json"  # whose networks kept epochs, and had none
FIELDS = ("config", "trained", "fold", "sha256")  # of every card
ADVICE = f"; bring back a copy, or delete the fold's {PREDICTIONS} and start the training again"


class Damaged(ValueError):
    """A saved file is missing, or is not as it was written."""


def made(config: ml_collections.ConfigDict, seconds: float, corpus: Corpus) -> dict[str, Any]:
    """Returns what the card of a model records of its making.

    Args:
        config: The run's config.
        seconds: The time that training or fitting took.
        corpus: The corpus.

    Returns:
        `devices` (see `processes.devices`; scikit-learn and XGBoost use the CPU alone), `seconds`,
        and the hash of the published `weights` that were read, "" without any: of the file or,
        where the backbone has a `load` of its own, of all parameters as safetensors writes them; of
        embeddings that of their model, whose licence and training data are `model_terms`.
        And, where there are any, the other corpora that are `auxiliary`, see
        `data.auxiliary.counts`.
    """
    devices = {"kind": "cpu", "number": 1}
    if "picture" in config or "train" in config:
        devices = processes.devices()
    weights = ""
    if "weights" in config and not config.weights and "members" not in config:  # which say so
        from ds_jax.models import pretrained  # here, since reading a model needs none of it

        backbone = built(config)
        if backbone.load is None:
            weights = pretrained.cached(backbone, full=needs_full_weights(config))
        else:
            weights = f"sha256:{files.sha256(safetensors.numpy.save(flatten(backbone.load(''))))}"
    made = {"devices": devices, "seconds": seconds, "weights": weights}
    if config.get("features") == extract.EMBEDDINGS:
        settings = embeddings.pinned(extract.settings(config).embeddings)
        made["weights"] = f"sha256:{settings.sha256}"
        made["model_terms"] = embeddings.terms(settings)
    if corpus.auxiliary:
        made["auxiliary"] = auxiliary.counts(auxiliary.describe(corpus.auxiliary))
    return made


def save(directory: Path, name: str, content: bytes, card: Mapping[str, Any]) -> None:
    """Writes a finished model to a fold's `checkpoints` folder.

    Args:
        directory: The folder, whose earlier model is replaced.
        name: The name of the model's file.
        content: The content of that file.
        card: What describes the model, as JSON: `config` (the run's), `fold` (its digest, see
            `leakage.fold_digest`), `trained` (the classes that its training utterances have),
            `made`, and what its kind needs besides. The SHA-256 of the content is added here.

    Raises:
        OSError: The folder cannot be written.
    """
    (directory / CARD).unlink(missing_ok=True)  # from here until the end there is no model
    files.write_bytes(directory / name, content)
    card = {**card, "sha256": files.sha256(content)}
    files.write_json(directory / CARD, card, sealed=True)


def save_model(directory: Path, variables: Variables, card: Mapping[str, Any]) -> None:
    """Writes a finished network, as `save`.

    Args:
        directory: The folder.
        variables: The network's variables, on the host.
        card: As for `save`, with `epoch` (the one that was selected), `history` (the rows of
            metrics.jsonl) and `kept` (the epoch from which training can go on, in a list).
    """
    save(directory, MODEL, safetensors.numpy.save(flatten(variables)), card)


def read_card(directory: Path, *fields: str, card: str = CARD) -> dict[str, Any]:
    """Reads what describes the finished model in a fold's `checkpoints` folder.

    Args:
        directory: The folder.
        fields: The fields that the card must have besides those of every card.
        card: The name of the card's file.

    Returns:
        The card as `save` was given it, with `sha256`.

    Raises:
        FileNotFoundError: There is no finished model in the folder.
        ValueError: The card is damaged.
    """
    path = directory / card
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}: {_explain_absence(directory)}")
    try:
        content = files.read_json(path)
    except ValueError as error:
        raise Damaged(f"{error}{ADVICE}") from error
    if missing := [name for name in (*FIELDS, *fields) if name not in content]:
        raise Damaged(f"{path} is damaged: it has no field {missing[0]}{ADVICE}")
    return content


def _explain_absence(directory: Path) -> str:
    """Says why a fold's `checkpoints` folder holds no card, and what to do."""
    if not (directory.parent / PREDICTIONS).is_file():
        return "train this fold to its end first, or name another folder"
    if (directory / CARD_OF_EARLIER_VERSIONS).is_file() or any(directory.glob("*/variables")):
        return (
            "this fold was trained by an earlier version of this program. Use that version, or "
            f"delete the fold's {PREDICTIONS} and start the training again"
        )
    return f"it was deleted{ADVICE}"


def load_variables(directory: Path, like: Variables, card: str = CARD) -> Variables:
    """Loads the finished model in a fold's `checkpoints` folder.

    Args:
        directory: The folder.
        like: Variables of the same network, or their shapes.
        card: The name of the card's file.

    Returns:
        The variables, as host arrays.

    Raises:
        FileNotFoundError: There is no finished model in the folder.
        ValueError: It is damaged, or of another network.
    """
    named = safetensors.numpy.load(read_model(directory, card=card))
    return unflatten(named, like, directory / MODEL)


def read_model(directory: Path, name: str = MODEL, card: str = CARD) -> bytes:
    """Reads the file of the finished model, by its name, and checks it against its card.

    Raises:
        FileNotFoundError, ValueError: As `load_variables`.
    """
    path, sha256 = directory / name, read_card(directory, card=card)["sha256"]
    content = path.read_bytes() if path.is_file() else b""
    if files.sha256(content) != sha256:
        raise Damaged(f"{path} is damaged: it is not as it was written{ADVICE}")
    return content


def flatten(tree: Any) -> dict[str, np.ndarray]:
    """Names the leaves of a tree by their paths, such as "params/vgg16/block1_conv1/kernel"."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {_name(path): np.asarray(leaf, order="C") for path, leaf in leaves}


def unflatten(named: Mapping[str, np.ndarray], like: Any, source: Path) -> Any:
    """Makes a tree of named leaves.

    Args:
        named: Arrays by their paths, as `flatten` returns them.
        like: A tree of the same structure and shapes.
        source: Where the arrays come from.

    Raises:
        ValueError: Names or shapes are not those of the tree.
    """
    leaves = jax.tree_util.tree_leaves_with_path(like)
    shapes = {_name(path): leaf.shape for path, leaf in leaves}
    if {name: array.shape for name, array in named.items()} != shapes:
        raise ValueError(
            f"{source} is of another network than its config describes: use the version of this "
            "program that it was trained by, or train again"
        )
    return jax.tree.unflatten(jax.tree.structure(like), [named[name] for name in shapes])


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")

"""One ridge on the vectors of several members, whose kernels are added: `merging = "kernels"`.

A member's kernel is that of its own ridge, divided by its number of features, so that members weigh
alike however many features they have. A linear kernel is a sum over features: what each member's
features add to the logits is computed apart, and then added up.
"""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from ds_jax.data.corpus import Corpus
from ds_jax.data.folds import Fold
from ds_jax.evaluation import predictions
from ds_jax.evaluation.predictions import Predicted
from ds_jax.runtime.workdir import PREDICTIONS, fold_directory, member_directories
from ds_jax.systems import classifier_system, classifiers
from ds_jax.systems.classifiers import Ridge
from ds_jax.systems.ensemble import Joined
from ds_jax.systems.model import Model


def read(config: ConfigDict, load: Callable[[ConfigDict, str], Corpus], name: str) -> Corpus:
    """Returns a corpus whose inputs are the vectors of all members, one member after the other.

    `load` returns the corpus of a name with the inputs that a member's config describes.

    Raises:
        ValueError: Members use other recordings of the corpus.
    """
    corpora = []
    for member in config.members.values():
        corpus = load(member, name)
        inputs = classifier_system.vectors(member, corpus)
        corpora.append(dataclasses.replace(corpus, inputs=inputs))
        del corpus  # whose pictures would stay in memory
    rows = [[corpus.all_utterances[owner].name for owner in corpus.owners] for corpus in corpora]
    for member, names in zip(config.members, rows, strict=True):
        if names != rows[0]:
            odd = sorted((Counter(names) - Counter(rows[0])) + (Counter(rows[0]) - Counter(names)))
            raise ValueError(
                f"{name}: {odd[0]!r}, or a variant of it, can be used by one of the members "
                f"{next(iter(config.members))!r} and {member!r} alone: members of "
                "merging='kernels' need the same recordings, so leave it out"
            )
    blocks = tuple(corpus.inputs.shape[1] for corpus in corpora)
    inputs = np.concatenate([corpus.inputs for corpus in corpora], axis=1)
    return dataclasses.replace(corpora[-1], inputs=inputs, blocks=blocks)


def fit(config: ConfigDict, corpus: Corpus, protocol: str) -> Callable:
    """Fits on what `read` returned; see `base.Implementation`."""
    model = next(iter(config.members.values())).model.to_dict() | {"blocks": corpus.blocks}
    if config.emphasis:  # an index, since blocks have no names
        model["emphasis"] = [*config.members].index(config.emphasis)
    fit_folds = classifier_system.fit_vectors(config, Ridge, model, corpus, protocol)

    def fit_and_compare(made: Mapping[int, Fold], workdir: Path) -> Iterator:
        for number, predicted in fit_folds(made, workdir):
            alone = {
                name: predictions.read(fold_directory(folder, number) / PREDICTIONS).probabilities
                for name, folder in member_directories(workdir, config).items()
            }
            yield number, predicted and predicted._replace(head_probabilities=alone)

    return fit_and_compare


def predict(rows: Mapping[Path, np.ndarray], corpus: Corpus) -> Iterator[tuple[Path, Predicted]]:
    """Predicts what `read` returned; see `base.Implementation`."""
    return classifier_system.predict_vectors(Ridge, rows, corpus.inputs, len(corpus.classes))


def find(
    config: ConfigDict,
    checkpoints: Sequence[Path],
    members: Sequence[Model],
    read_card: Callable[[], dict],
) -> Joined:
    """Finds the ridges in some folds' `checkpoints` folders.

    The members say how recordings are represented; `read_card` is that of `ensemble.join`.
    """
    ridges = functools.cache(lambda: [classifiers.load(Ridge, each) for each in checkpoints])
    parts = [
        Model(
            *(member.config, member.settings, len(checkpoints), lambda: {}),
            functools.partial(_load_block, ridges, number, member),
            never_answered=member.never_answered,
        )
        for number, member in enumerate(members)
    ]
    return Joined(config, parts, read_card)


def _load_block(
    ridges: Callable[[], Sequence[Ridge]], number: int, member: Model, enrolled: None
) -> Callable[[np.ndarray, int], Callable[[], Predicted]]:
    """Returns a function as `Model.start`, of which `Joined.merge` takes the logits."""
    start_vectors, count, loaded = member.load_measure(), len(member.classes), ridges()

    def start(inputs, size):
        wait = start_vectors(inputs, size)

        def logits():
            vectors = wait()
            added = [block_logits(ridge, number, vectors, count) for ridge in loaded]
            return Predicted(np.concatenate(added, axis=1), {}, {})

        return logits

    return start


def block_logits(ridge: Ridge, number: int, vectors: np.ndarray, count: int) -> np.ndarray:
    """Returns what the features of a member add to the logits of a ridge.

    Args:
        ridge, number: The ridge, and the number of the member.
        vectors: float32 [n, d], its features.
        count: The number of all classes.

    Returns:
        float64 [n, count], -inf for classes that training did not have.
    """
    space, ends = ridge.fitted, np.cumsum(ridge.fitted["blocks"])
    columns = slice(ends[number] - space["blocks"][number], ends[number])
    whole = np.zeros((len(vectors), ends[-1]), np.float32)
    whole[:, columns] = vectors
    rows = space["scaler"].transform(whole)[:, columns]
    decisions = ridge.decide(space[ridge.machine], rows @ space["rows"][:, columns].T)
    logits = np.full((len(vectors), count), -np.inf)
    logits[:, ridge.classes] = decisions / ridge.settings["temperature"]
    return logits

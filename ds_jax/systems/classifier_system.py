"""The systems that fit a classifier on each fold, whatever its vectors describe."""

import dataclasses
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict

from ds_jax.config import adapts
from ds_jax.data import enrolment, folds, leakage
from ds_jax.data.corpus import Corpus
from ds_jax.evaluation import predictions
from ds_jax.evaluation.predictions import Predicted
from ds_jax.runtime import processes, progress
from ds_jax.runtime.files import write_text
from ds_jax.runtime.workdir import CHECKPOINTS, METRICS, fold_directory
from ds_jax.systems import classifiers, deep_features
from ds_jax.systems.classifiers import KINDS, Classifier
from ds_jax.training.checkpoints import made, read_card

INNER_FOLDS = 5  # of the fitted rows, by which a classifier chooses


def fit(config: ConfigDict, corpus: Corpus, protocol: str) -> Callable:
    """Computes the vectors of the corpus; see `base.Implementation`.

    Of several processes every one fits all folds, and the first writes them.
    """
    corpus = dataclasses.replace(corpus, inputs=vectors(config, corpus))
    return fit_vectors(config, KINDS[config.system], config.model, corpus, protocol)


def fit_vectors(
    config: ConfigDict, kind: type[Classifier], model: Mapping, corpus: Corpus, protocol: str
) -> Callable:
    """Fits a kind of classifier, with some fields, on a corpus of vectors; otherwise as `fit`."""

    def fit_folds(made: Mapping[int, folds.Fold], workdir: Path) -> Iterator:
        shown = processes.is_first_process()
        for number in progress.bar("fitting", len(made), "folds", made, shown):
            fold, directory = made[number], fold_directory(workdir, number)
            fitted = _fit_fold(config, kind, model, corpus, protocol, number, fold, directory)
            if processes.is_first_process():
                yield number, _test(fitted, corpus, fold)

    return fit_folds


def predict(rows: Mapping[Path, np.ndarray], corpus: Corpus) -> Iterator[tuple[Path, Predicted]]:
    """Predicts with the classifiers of a run; see `base.Implementation`."""
    config = _config(next(iter(rows)))
    inputs = vectors(config, corpus)  # alike in all folds
    return predict_vectors(KINDS[config.system], rows, inputs, len(config.classes))


def predict_vectors(
    kind: type[Classifier], rows: Mapping[Path, np.ndarray], inputs: np.ndarray, count: int
) -> Iterator[tuple[Path, Predicted]]:
    """Predicts vectors, float32 [n, d], of so many classes; otherwise as `predict`."""
    for checkpoints, of_model in rows.items():
        shares = classifiers.load(kind, checkpoints).probabilities(inputs[of_model], count)
        yield checkpoints, Predicted(shares, {}, {})


def load_ensemble(checkpoints: Sequence[Path], enrolled: np.ndarray | None = None) -> Callable:
    """Loads the classifiers of a run, all at once; see `base.Implementation`."""
    config = _config(checkpoints[0])
    ensemble = [classifiers.load(KINDS[config.system], directory) for directory in checkpoints]
    start_vectors = load_measure(checkpoints)
    usual = None if enrolled is None else enrolment.measure(enrolled)

    def start(inputs, size):
        wait = start_vectors(inputs, size)

        def mean():
            vectors = wait()
            if usual is not None:
                vectors = enrolment.standardise(vectors, usual)
            shares = [each.probabilities(vectors, len(config.classes)) for each in ensemble]
            return Predicted(np.mean(shares, axis=0), {}, {})

        return mean

    return start


def load_measure(checkpoints: Sequence[Path]) -> Callable:
    """Returns what maps inputs to vectors, float32 [n, d]; see `base.Implementation`."""
    config = _config(checkpoints[0])
    if "picture" in config:
        return deep_features.create_features(config).create_extractor()
    return lambda inputs, size: lambda: inputs


def vectors(config: ConfigDict, corpus: Corpus) -> np.ndarray:
    """Returns float32 [n, d], the vectors of a corpus, whose folder may keep files of them."""
    found = corpus.inputs
    if "picture" in config:
        found = deep_features.create_features(config).compute(corpus.inputs, corpus.directory)
    return enrolment.standardise_speakers(found, corpus) if adapts(config) else found


def _fit_fold(
    config: ConfigDict,
    kind: type[Classifier],
    model: Mapping,
    corpus: Corpus,
    protocol: str,
    number: int,
    fold: folds.Fold,
    directory: Path,
) -> Classifier:
    """Fits on train and dev together: without epochs dev has nothing to choose."""
    rows = corpus.training_rows(fold.train + fold.dev)
    leakage.check_rows(f"fold {number}: the fit", rows, corpus, fold.splits, ("train", "dev"))
    inner = []
    for names in folds.inner_folds(corpus.utterances, fold, protocol, INNER_FOLDS, config.seed):
        held_out = np.isin(rows, corpus.rows_of(names))
        same = leakage.same_recordings(names, corpus.utterances)
        same = np.isin(corpus.owners[rows], corpus.owners[corpus.rows_of(same)])
        inner.append((np.flatnonzero(~same), np.flatnonzero(held_out)))
    labels, inputs = corpus.labels[rows], corpus.inputs
    began = time.monotonic()
    weights = corpus.weights(rows)
    fitted = classifiers.fit(kind, model, inputs[rows], labels, inner, config.seed, weights)
    if processes.is_first_process():
        lines = "".join(json.dumps(row) + "\n" for row in fitted.tried)
        write_text(directory / METRICS, lines)
        digest = leakage.fold_digest(number, fold.splits, corpus.digests)
        facts = made(config, time.monotonic() - began, corpus) | {"stopped_fits": fitted.stopped}
        classifiers.save(directory / CHECKPOINTS, fitted, config.to_dict(), digest, facts)
    chosen = ", ".join(f"{name} {value:.4g}" for name, value in fitted.settings.items())
    processes.say(
        f"fold {number}: fitted on {len(rows)} of {len(inputs)}{chosen and ': ' + chosen}"
    )
    if fitted.stopped:
        advice = "choose smaller config.model.costs"
        if model["scaling"] == "none":
            advice = f"set config.model.scaling to 'standardised', or {advice}"
        number_of = progress.many(fitted.stopped, "fit")
        processes.say(
            f"fold {number}: {number_of} stopped after {classifiers.STEPS:,} steps without having "
            f"converged, inner folds included, and will be used as found: {advice}"
        )
    return fitted


def _test(classifier: Classifier, corpus: Corpus, fold: folds.Fold) -> Predicted | None:
    """Predicts the test split of a fold, if it has one."""
    if not fold.test:
        return None
    rows = corpus.rows_of(fold.test)
    shares = classifier.probabilities(corpus.inputs[rows], len(corpus.classes))
    return predictions.average_windows(Predicted(shares, {}, {}), corpus, rows)


def _config(checkpoints: Path) -> ConfigDict:
    """Reads the config of the model in a fold's `checkpoints` folder."""
    return ConfigDict(read_card(checkpoints)["config"])

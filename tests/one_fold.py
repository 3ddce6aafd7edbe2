"""Training of one fold of the tiny corpus, which tests watch, spoil and break off."""

import dataclasses
import itertools
import json

import jax
import numpy as np
import pytest
import tiny

from ds_jax.evaluation import predictions
from ds_jax.runtime import shutdown
from ds_jax.training import inference
from ds_jax.training.checkpoints import MODEL
from ds_jax.training.parallel import ONE_MODEL

FOLD = tiny.fold(range(11), range(11, 14), range(14, 16))  # two steps an epoch


def changed(setup, **fields):
    """The same setup, compiled steps and all, with other fields of `config.train`."""
    config = setup.config.copy_and_resolve_references()
    config.train.update(fields)
    return dataclasses.replace(setup, config=config)


def stepping(setup, train_step):
    """The same setup with another step of training."""
    return dataclasses.replace(
        setup, steps={ONE_MODEL: (train_step, setup.steps_for(ONE_MODEL)[1])}
    )


def killed_after(setup, steps):
    """The same setup, whose training is killed when it begins another step."""
    left, train_step = iter(range(steps)), setup.steps_for(ONE_MODEL)[0]

    def dying_step(*arguments):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return train_step(*arguments)

    return stepping(setup, dying_step)


def ended_by(error, setup, workdir, *patched, fold=FOLD):
    """Trains fold 1 until an error ends it, with an attribute patched."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(*patched)
        with pytest.raises(error):
            tiny.train_fold(setup, 1, fold, workdir)


def sigterm_after(checks):
    """What is patched so that SIGTERM is there when it is looked for after so many times."""
    answers = itertools.chain([False] * checks, itertools.repeat(True))
    return shutdown, "sigterm_received", lambda: next(answers)


def die(*arguments, **options):
    raise KeyboardInterrupt


def history(workdir):
    """The rows of the one fold's metrics.jsonl without what a clock has measured."""
    (path,) = workdir.glob("fold_*/metrics.jsonl")
    lines = path.read_text().splitlines()
    timed = ("seconds", "inputs_per_second")
    return [{k: v for k, v in json.loads(line).items() if k not in timed} for line in lines]


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def predict(setup, variables, *rows):
    """What variables predict for the utterances of these rows."""
    rows, placed = np.asarray(rows, np.int32), ONE_MODEL.place([variables])
    step = setup.steps_for(ONE_MODEL)[1]
    (windows,) = inference.predict(step, placed, setup.inputs, ONE_MODEL, [rows], 8, 1)
    return predictions.average_windows(windows, setup.corpus, rows)


def outcome(setup, workdir, fold=FOLD):
    """Trains fold 1 to its end, and returns all that must be the same however often it stopped."""
    predicted = tiny.train_fold(setup, 1, fold, workdir)
    model = (workdir / "fold_01" / "checkpoints" / MODEL).read_bytes()
    return bits(predicted), history(workdir), model

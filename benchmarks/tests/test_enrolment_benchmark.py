"""What an enrolment is worth, measured on a run whose voices differ by more than emotions do."""

import dataclasses

import numpy as np
import tiny

from benchmarks import enrolment
from ds_jax.commands import train


def test_more_recordings_of_all_classes_are_worth_more(tmp_path, monkeypatch):
    monkeypatch.setattr(enrolment, "COUNTS", (2, 12))
    config, corpus = tiny.make("ridge")
    config.adapt, config.model.costs = "speaker", (1.0,)
    rng = np.random.default_rng(0)
    voices = 50 * rng.normal(size=(3, 60))[np.arange(42) % 3]
    inputs = corpus.inputs + voices + 0.5 * rng.normal(size=(42, 60))
    corpus = dataclasses.replace(corpus, inputs=inputs.astype(np.float32))
    assert train.run(config, corpus, tmp_path)
    found = enrolment.measure(config, corpus, tmp_path, draws=3)
    assert [(count, len(each)) for count, each in found["counts"].items()] == [(2, 3), (12, 3)]
    assert np.mean(found["counts"][2]) < np.mean(found["counts"][12]) <= found["all"]
    assert {*found["classes"]} == {*corpus.classes}
    assert found["classes"]["JOY"] < found["all"]

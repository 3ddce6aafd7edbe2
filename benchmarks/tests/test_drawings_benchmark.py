"""How generated pictures are recognised by models that recordings alone have trained."""

import pytest
import tiny

from benchmarks import drawings
from ds_jax.commands import train
from ds_jax.models.generator import Generator
from ds_jax.training import generate


@pytest.mark.slow
def test_each_generated_picture_is_classified_once_and_so_is_each_recording(tmp_path, monkeypatch):
    monkeypatch.setattr(generate, "LEAST", 1)
    monkeypatch.setattr(generate, "DRAWN_AT_ONCE", 16)
    small = lambda bands, classes: Generator(bands, classes, (32, 32))  # noqa: E731
    monkeypatch.setattr(generate, "Generator", small)
    config, corpus = tiny.make("ds_am_statistics")
    config.train.epochs, config.generate.steps = 1, 2
    with tiny.narrow_vgg16(), tiny.given_weights():
        for share in (0.0, 0.5):
            config.generate.share = share
            assert train.run(config, corpus, tmp_path / str(share))
        classes, totals = drawings.measure(tmp_path / "0.0", tmp_path / "0.5")
    assert classes == corpus.classes
    assert totals["tested"].sum() == 42
    assert totals["generated"].sum() == 42  # half as many as the 28 recordings of each of 3 folds
    assert totals["generated"].sum(axis=1).all()

"""A backbone of one's own, with parameters from anywhere and nothing above its blocks."""

import dataclasses

import pytest
import tiny
from refusals import refused_field

from ds_jax.commands import train
from ds_jax.models.backbones import BACKBONES
from ds_jax.systems import base as systems
from ds_jax.training.checkpoints import read_card


@pytest.fixture
def own(monkeypatch):
    fields = {"name": "own", "title": "Own", "top": None, "top_layers": (), "trunk_onnx": None}
    backbone = dataclasses.replace(tiny.NARROW, load=lambda path: tiny.pretrained(), **fields)
    backbone = dataclasses.replace(backbone, trunk_file=None, trunk_package=None, full_file=None)
    monkeypatch.setitem(BACKBONES, "own", backbone)
    return backbone


def test_a_fold_is_fitted_on_it(own, tmp_path):
    config, corpus = tiny.make("ds_svc")
    config.model.backbone = "own"
    train.check(config, [0])
    train.run(config, corpus, tmp_path, [0])
    card = read_card(tmp_path / "fold_00" / "checkpoints")
    assert card["made"]["weights"].startswith("sha256:")
    assert systems.title(config) == "DS-SVC on Own (block3_pool+block4_pool)"
    assert "fc1" not in own.shapes(full=False)


def test_it_has_no_head_of_fully_connected_layers(own):
    config, _ = tiny.make("ds_fc")
    config.model.backbone, config.model.head = "own", "fc"
    assert refused_field(systems.check, config) == "model.head"

"""Systems that recordings of another corpus train too: what they leave, and what they refuse."""

import copy
import dataclasses
import json
import shutil

import numpy as np
import pytest
import tiny
from refusals import refused_field

from configs import base
from ds_jax.commands import ensemble, evaluate, report, train
from ds_jax.data import auxiliary
from ds_jax.evaluation import summary
from ds_jax.report.tables import of_run
from ds_jax.runtime.workdir import CHECKPOINTS
from ds_jax.systems import base as systems
from ds_jax.systems import card, classifier_system, classifiers

GIVEN = ("other=0.5",)


def digested(corpus, name):
    utterances = [dataclasses.replace(u, digest=f"{name}/{u.name}") for u in corpus.utterances]
    return dataclasses.replace(corpus, name=name, utterances=tuple(utterances))


def made(system):
    """A config, its corpus, and another corpus that trains its models too."""
    config, corpus = tiny.make(system)
    config.auxiliary = GIVEN
    corpus = digested(corpus, "tiny")
    other = dataclasses.replace(
        digested(corpus, "other"),
        inputs=corpus.inputs[::-1].copy(),
        utterances=digested(corpus, "other").utterances[::-1],
        title="The Other",
        licence="CC BY-NC-SA 4.0",
    )
    return config, corpus, other


@pytest.mark.usefixtures("tiny_weights")
@pytest.mark.parametrize("system", ["ridge", "ds_svc"])
def test_a_run_says_who_trained_it_and_is_not_tested_on_them(system, tmp_path, capsys):
    config, corpus, other = made(system)
    train.run(config, auxiliary.join(corpus, [(other, 0.5)]), tmp_path)
    result = summary.read(tmp_path / "report.json")
    expected = {"corpus": "other", "title": "The Other", "licence": "CC BY-NC-SA 4.0"}
    assert result.auxiliary == [expected | {"recordings": 42}]
    assert result.n == len(corpus.utterances)
    assert 'id="auxiliary"' in (tmp_path / "report.html").read_text("utf-8")
    assert report.run(config, corpus, tmp_path) == result  # which needs the corpus alone
    shutil.copytree(tmp_path / "fold_01", tmp_path / "copy" / "fold")
    for folder in (tmp_path, tmp_path / "copy"):  # one fold says so without its run
        read = card.read(config, sorted(folder.glob(f"fold*/{CHECKPOINTS}")))
        assert read["auxiliary"] == result.auxiliary
        assert "The Other is CC BY-NC-SA 4.0" in read["licences"]
    tables = of_run(result)
    assert all("The Other" in table.caption for table in tables.values())
    with pytest.raises(ValueError, match="other trained"):
        evaluate.run(tmp_path, other)
    [recorded] = json.loads((tmp_path / "folds.json").read_text())["auxiliary"]
    heard = {*list(recorded["digests"].values())[:3]}
    assert len(heard) == 3
    third = digested(corpus, "third")
    utterances = list(third.utterances)
    for place, digest in zip((0, 4, 9), heard, strict=True):
        utterances[place] = dataclasses.replace(utterances[place], digest=digest)
    tested = evaluate.run(tmp_path, dataclasses.replace(third, utterances=tuple(utterances)))
    assert (tested.n, tested.equal_left_out) == (len(utterances) - 3, 3)
    assert (tested.auxiliary, tested.shared["recordings"]) == (result.auxiliary, 0)


def test_other_auxiliary_recordings_do_not_continue_a_run(tmp_path):
    config, corpus, other = made("ridge")
    assert not train.run(config, auxiliary.join(corpus, [(other, 0.5)]), tmp_path, [0])
    changed = [dataclasses.replace(u, digest=f"{u.digest}!") for u in other.utterances]
    changed = dataclasses.replace(other, utterances=tuple(changed))
    with pytest.raises(ValueError, match="bring back these corpora"):
        train.run(config, auxiliary.join(corpus, [(changed, 0.5)]), tmp_path)
    assert train.run(config, auxiliary.join(corpus, [(other, 0.5)]), tmp_path)


@pytest.mark.parametrize(("named", "joined"), [((), True), (GIVEN, False), (("third=1",), True)])
def test_a_corpus_in_memory_has_what_the_config_names(named, joined, tmp_path):
    config, corpus, other = made("ridge")
    config.auxiliary = named
    corpus = auxiliary.join(corpus, [(other, 0.5)]) if joined else corpus
    with pytest.raises(ValueError, match=r"config\.auxiliary names"):
        train.run(config, corpus, tmp_path)
    assert not list(tmp_path.iterdir())


def test_an_ensemble_records_what_any_member_heard(tmp_path):
    """Some set of features cannot be computed of every recording."""
    config, corpus, other = made("ridge")
    member, config = config, tiny.config()
    config.corpus, config.folds = "tiny", member.folds
    base.use_ensemble(config, first=member, second=copy.deepcopy(member))
    config.members.second.features = "egemaps"

    def load(experiment, name):
        kept = len(other.utterances) - (5 if experiment.features == "egemaps" else 0)
        fewer = dataclasses.replace(
            other,
            utterances=other.utterances[:kept],
            inputs=other.inputs[:kept],
            owners=other.owners[:kept],
        )
        return auxiliary.join(corpus, [(fewer, 0.8)])

    assert ensemble.run(config, load, tmp_path)
    heard, *of_members = [
        auxiliary.read(folder / "folds.json")[0]["digests"]
        for folder in (tmp_path, *sorted(tmp_path.glob("members/*")))
    ]
    assert [len(digests) for digests in of_members] == [42, 37]
    assert heard == of_members[0]
    [recorded] = summary.read(tmp_path / "report.json").auxiliary
    assert (recorded["title"], recorded["recordings"]) == ("The Other", len(heard))


def test_auxiliary_recordings_are_fitted_in_every_inner_fold(monkeypatch, tmp_path):
    config, corpus, other = made("svc")
    joined, calls = auxiliary.join(corpus, [(other, 0.5)]), []
    fit = classifiers.fit

    def noted(kind, model, inputs, labels, inner, seed, weights):
        calls.append((weights, inner))
        return fit(kind, model, inputs, labels, inner, seed, weights)

    monkeypatch.setattr(classifiers, "fit", noted)
    fold = tiny.fold(range(28), range(0), range(28, 42))
    list(classifier_system.fit(config, joined, "speakers")({0: fold}, tmp_path))
    [(weights, inner)] = calls
    np.testing.assert_allclose(weights, [1] * 28 + [14 / 42] * 42)
    for fitted, held_out in inner:
        assert {*range(28, 70)} < {*fitted.tolist()}
        assert max(held_out) < 28


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"auxiliary": ("tiny=1",)}, "auxiliary"),
        ({"auxiliary": ("a=1", "a=2")}, "auxiliary"),
        ({"auxiliary": ("a",)}, "auxiliary"),
        ({"auxiliary": ("a=1",), "eval_on": ("a",)}, "eval_on"),
        ({"auxiliary": ("a=1",), "adapt": "speaker"}, "auxiliary"),
    ],
)
def test_impossible_auxiliary_corpora_are_refused_before_any_work(fields, field):
    config, _ = tiny.make("ridge")
    config.update_from_flattened_dict(fields)
    assert refused_field(systems.check, config) == field


def test_members_have_auxiliary_corpora_of_their_own_and_networks_none():
    config = base.get_config()
    base.use_ds_am_fused(config)
    config.members.ridge.auxiliary = ("a=1",)
    systems.check(config)
    joined = config.members.ridge.members
    assert {tuple(member.auxiliary) for member in joined.values()} == {("a=1",)}
    for name in (
        "members.ridge.members.timeline.auxiliary",
        "members.networks.members.timeline_0.auxiliary",
        "members.networks.auxiliary",
        "auxiliary",
    ):
        changed = config.copy_and_resolve_references()
        changed.update_from_flattened_dict({name: ("b=1",)})
        assert refused_field(systems.check, changed) == name
    changed = config.copy_and_resolve_references()
    changed.eval_on = ("a",)
    assert refused_field(systems.check, changed) == "eval_on"

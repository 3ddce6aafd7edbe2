"""All cells of the paper's tables, with stand-ins for training and evaluation."""

import json
import re
from pathlib import Path

import numpy as np

from configs import paper as paper_config
from ds_jax import config as configuration
from ds_jax.commands import evaluate, paper, train
from ds_jax.data import auxiliary, fold_files, folds
from ds_jax.data.corpus import Corpus, Utterance
from ds_jax.data.labels import LABELS
from ds_jax.evaluation import intervals, predictions, significance, summary
from ds_jax.evaluation.predictions import Predicted
from ds_jax.features import extract
from ds_jax.systems import base as systems

SYSTEMS = {"MLR": "mlr", "SVC": "svc", "XGBoost": "xgboost", "RNN": "lstm", "FFNN": "ffnn"}
SYSTEMS |= {"DS-SVC": "ds_svc", "DS-FC": "ds_fc", "DS-AM": "ds_am"}
TITLES = {"emovo": "EMOVO", "emodb": "EmoDB", "ravdess": "RAVDESS"}
UNKNOWN = {"speakers": None, "sentences": None}


def corpus(name, speakers=4):
    """Each speaker says each emotion in two sentences."""
    utterances = tuple(
        Utterance(f"{s}{label}{n}", label, f"s{s}", "unknown", f"t{n}", "normal", 1.0)
        for s in range(speakers)
        for label in LABELS
        for n in range(2)
    )
    count = len(utterances)
    inputs = np.zeros((count, 1), np.float32)
    return Corpus(name, utterances, inputs, np.arange(count), title=TITLES.get(name, ""))


def read_experiment(name):
    return configuration.load(f"configs/{name}.py")


def experiment(**fields):
    """The config of the tables."""
    config = paper_config.get_config()
    config.update_from_flattened_dict(fields)
    return config


def stand_in(patch):
    """Replaces training and evaluation; they write the files of real runs with random predictions.

    Returns:
        The calls: what was "loaded", "run" and "evaluated".
    """
    calls = {"loaded": [], "run": [], "evaluated": []}
    rng = np.random.default_rng(0)

    def write_fold(directory, utterances):
        probabilities = rng.dirichlet(np.ones(7), len(utterances))
        predictions.write(directory, utterances, Predicted(probabilities, {}, {}), LABELS)

    def write_report(directory, sources, config, corpus, shared, workdir):
        result = summary.RunSummary(
            **summary.measure(predictions.read_pooled(sources)),
            corpus=corpus.name,
            corpus_title=corpus.title,
            system=config.system,
            adapt=config.adapt,
            auxiliary=[
                {"corpus": name, "title": "", "licence": "", "recordings": 1}
                for name in auxiliary.shares(config.auxiliary, config.corpus)
            ],
            protocol=config.folds.protocol,
            selected_on=config.select_on,
            shared=shared,
            folds=[],
            made=configuration.recorded(workdir),
        )
        summary.write(directory / "report.json", result)

    def train_folds(config, corpus, workdir, numbers=None):
        configuration.check_same(config, workdir)
        calls["run"].append(f"{workdir.parent.name}/{workdir.name}")
        rule = config.folds.protocol, config.folds.count, config.folds.seed
        all_folds = folds.make_folds(corpus.utterances, *rule, config.select_on)
        configuration.write(config, workdir)
        fold_files.write_folds(
            workdir / "folds.json", corpus.name, rule[0], rule[2], config.select_on, all_folds
        )
        sources = []
        for number, fold in enumerate(all_folds):
            if tested := [u for u in corpus.utterances if u.name in fold.test]:
                sources.append(workdir / f"fold_{number:02}")
                write_fold(sources[-1], tested)
        if sources:
            shared = folds.shared(all_folds, corpus.utterances)
            write_report(workdir, sources, config, corpus, shared, workdir)
        return True

    def evaluate_elsewhere(workdir, corpus, drawn=None):
        calls["evaluated"].append((f"{workdir.parent.name}/{workdir.name}", corpus.name))
        directory = workdir / "evaluations" / corpus.name
        write_fold(directory, corpus.utterances)
        config = configuration.read(workdir)
        write_report(directory, [directory], config, corpus, UNKNOWN, workdir)

    patch.setattr(train, "run", train_folds)
    patch.setattr(evaluate, "run", evaluate_elsewhere)
    patch.setattr(systems, "check", lambda config: None)
    patch.setattr(intervals, "DRAWS", 40)
    patch.setattr(significance, "SWAPS", 40)
    return calls


def run(workdir: Path, calls, config=None, load=corpus, drawn=None) -> tuple[dict, str]:
    """Runs the tables; `load` makes a corpus of its name. Returns paper.json and paper.html."""

    def load_and_note(experiment, name):
        calls["loaded"].append((name, extract.settings(experiment)))
        return load(name)

    paper.run(config or experiment(), read_experiment, load_and_note, workdir, drawn)
    return json.loads((workdir / "paper.json").read_text()), (workdir / "paper.html").read_text()


def all_cells(content):
    return content["cells"] + content["ds_am"]


def cell(content, config, protocol="paper"):
    return next(
        one for one in content["cells"] if (one["config"], one["protocol"]) == (config, protocol)
    )


def section(page, heading):
    """The part of the page under a heading, without markup."""
    part = page.split(f"<h2>{heading}</h2>")[1].split("<h2>")[0]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", part))

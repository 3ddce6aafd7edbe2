"""What is known of finished models: their data, their protocol, their scores and the terms."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from ds_jax import config as configuration
from ds_jax.data import auxiliary
from ds_jax.data.folds import PROTOCOLS
from ds_jax.evaluation import summary
from ds_jax.evaluation.metrics import SCORES
from ds_jax.models.backbones import backbone_of
from ds_jax.runtime.files import read_json
from ds_jax.runtime.workdir import CONFIG, EVALUATIONS, FOLDS, REPORT
from ds_jax.systems import base as systems
from ds_jax.training.checkpoints import read_card

# What nobody should do with a model, whatever it was trained on.
NOT_FOR = (
    "decisions about people: hiring, school, credit, insurance, police, borders, or detecting lies",
    "recognising emotions at work or in education, which Article 5 of the EU's AI Act prohibits "
    "but for medical or safety reasons",
    "diagnosis or therapy: it was never tested on patients",
    "listening to people who do not know of it, or did not agree",
    "claims about what somebody feels: it tells apart how recordings of its corpus sound",
)


def read(config: ConfigDict, checkpoints: Sequence[Path]) -> dict[str, Any]:
    """Reads what is known of the models of a run, or of a fold.

    Args:
        config: The config that they were trained by.
        checkpoints: Their `checkpoints` folders.

    Returns:
        `labels` (the classes), `never_answered` (those that no training had), `system`,
        `trained_on`, `auxiliary` (other corpora that trained them too, see `RunSummary`),
        `synthetic`, `generated` (whether generated pictures trained them too),
        `protocol`, `protocol_text`, `selected_on`, `adapt`, `models` (their folds and, of
        networks, epochs), `scores` (of the run's reports, and by which models), `licences`
        (sentences), `not_for` (what they must not be used for), `weights` (the hash of the
        pretrained parameters, "" without any) and `config` (see `configuration.public`), as JSON.

    Raises:
        ValueError: A file of the run is damaged.
    """
    workdir = checkpoints[0].parents[1]
    protocol = config.folds.protocol
    if (workdir / FOLDS).is_file():  # folds given in a file have their own protocol
        protocol = read_json(workdir / FOLDS)["protocol"]
    fields = ("epoch",) if systems.SYSTEMS[config.system].chooses == "epoch" else ()
    models, made = [], []
    for folder in checkpoints:
        card = read_card(folder, *fields)
        made.append(card.get("made", {}))
        models.append({"fold": folder.parent.name} | {name: card[name] for name in fields})
    others = made[0].get("auxiliary", [])  # alike in all
    licences = [_corpus_licence(config, workdir)]
    licences += [_licence(other["title"] or other["corpus"], other["licence"]) for other in others]
    licences += [backbone_of(config).terms] if "weights" in config else []
    licences += terms_of_models(made)
    return {
        "labels": list(config.classes),
        "never_answered": never_answered(config, checkpoints),
        "system": systems.title(config),
        "trained_on": config.corpus,
        "auxiliary": others,
        "synthetic": config.synthetic,
        "generated": systems.generates(config),
        "protocol": protocol,
        "protocol_text": PROTOCOLS[protocol],
        "selected_on": systems.selected_on(config),
        "adapt": config.adapt,
        "models": models,
        "scores": list(
            _scores(workdir, [folder.parent.name for folder in checkpoints], config.corpus)
        ),
        "licences": licences,
        "not_for": list(NOT_FOR),
        "weights": hash_of_weights(workdir, made),
        "config": configuration.public(config).to_dict(),
    }


def never_answered(config: ConfigDict, checkpoints: Sequence[Path]) -> list[str]:
    """Returns the classes that no model's training had, and that so have a probability of 0."""
    trained = {label for folder in checkpoints for label in read_card(folder)["trained"]}
    return [label for label in config.classes if label not in trained]


def of_ensemble(
    config: ConfigDict, folder: Path, workdir: Path, members: Sequence[dict[str, Any]]
) -> dict[str, Any]:
    """Returns what is known of an ensemble, or of one fold: the fields of `read`, and `members`.

    Args:
        config, workdir: The config and the folder of its run.
        folder: The folder of its run, or of the fold.
        members: The cards of its members.
    """
    fold = [] if folder == workdir else [folder.name]
    licences = dict.fromkeys(text for member in members for text in member["licences"])
    unanswered = [member["never_answered"] for member in members]
    return members[0] | {
        "never_answered": [x for x in config.classes if all(x in each for each in unanswered)],
        "system": systems.title(config),
        "auxiliary": auxiliary.of_all(member["auxiliary"] for member in members),
        "generated": any(member["generated"] for member in members),
        "selected_on": systems.selected_on(config),
        "models": [model for member in members for model in member["models"]],
        "scores": list(_scores(workdir, fold, config.corpus)),
        "licences": list(licences),
        "weights": ", ".join(sorted({member["weights"] for member in members} - {""})),
        "config": configuration.public(config).to_dict(),
        "members": list(members),
    }


def hash_of_weights(workdir: Path, made: Iterable[Mapping[str, Any]]) -> str:
    """Returns the hash of the pretrained parameters that models began with, such as "sha256:...".

    Args:
        workdir: The folder of their run.
        made: What their cards record of their making; older ones lack some of it.
    """
    record = configuration.recorded(workdir) if (workdir / CONFIG).is_file() else {}
    given = record.get(configuration.PATHS["weights"])
    hashes = {card.get("weights", "") for card in made} | {f"sha256:{given}" if given else ""}
    return ", ".join(sorted(hashes - {""}))


def terms_of_models(made: Iterable[Mapping[str, Any]]) -> list[str]:
    """Returns what cards of models record of the licences of what they read, each once."""
    return sorted({card.get("model_terms", "") for card in made} - {""})


def _corpus_licence(config: ConfigDict, workdir: Path) -> str:
    """Returns a sentence about the terms of the recordings that the models were trained on."""
    if config.synthetic:
        return "The recordings were generated by ds_jax, and are free of any terms"
    report = read_json(workdir / REPORT) if (workdir / REPORT).is_file() else {}
    return _licence(report.get("corpus_title") or config.corpus, report.get("corpus_licence", ""))


def _licence(corpus: str, licence: str) -> str:
    """Returns a sentence about the terms of a corpus, which may be unknown."""
    if licence:
        return f"{corpus} is {licence}"
    return f"The terms of {corpus} are those of whoever recorded it"


def _scores(workdir: Path, names: Sequence[str], corpus: str) -> Iterator[dict]:
    """Yields the scores of the run's reports, and the models that each is about.

    Args:
        workdir: The folder of the run.
        names: The folds of the models; nothing for an ensemble as a whole.
        corpus: The one that they were trained on.
    """
    kept = ("protocol", "selected_on", "n", "classes_present", "shared", "interval", *SCORES)
    for path in (workdir / REPORT, *sorted(workdir.glob(f"{EVALUATIONS}/*/{REPORT}"))):
        if not path.is_file():
            continue
        report = vars(summary.read(path))
        models = [f"fold_{record['fold']:02}" for record in report["folds"]]
        if report["corpus"] == corpus:
            judged_by = "each fold's model, on the utterances that its fold tests"
        elif models == names:
            judged_by = "this file"
        else:
            judged_by = report["evaluated_by"] or f"the mean of {len(models)} models"
        yield {"tested_on": report["corpus"], "judged_by": judged_by} | {
            name: report[name] for name in kept
        }

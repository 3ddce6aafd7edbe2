"""The entry point: flags, and the command that --mode names."""

import functools
import importlib
import itertools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from configs import base, ladder, paper
from ds_jax import cli
from ds_jax import config as configuration
from ds_jax.runtime import files, shutdown

QUICKSTART = str(Path(__file__).parent / "configs" / "quickstart.py")
MANY = {"paper": paper.get_config, "ladder": ladder.get_config}  # configs of many experiments
SCHEMAS = base.SCHEMAS | MANY
_RAW = os.environ.get("DS_JAX_CORPORA") or "corpora"
_CONFIG = config_flags.DEFINE_config_file("config", None, "experiment; default the quick start")
_MODE = flags.DEFINE_enum("mode", "train", list(cli.MODES), "command to run")
_FOLD = flags.DEFINE_string("fold", "", "folds to run, such as 3, 0-4 or 0,2; default all")
_WORKDIR = flags.DEFINE_string("workdir", "", "folder of the run; default runs/<config name>")
_CORPORA = flags.DEFINE_string("corpora_dir", _RAW, "raw recordings, a folder for each corpus")
_DATA = flags.DEFINE_string("data_dir", "data", "prepared corpora")
_EVAL_ON = flags.DEFINE_string("eval_on", "", "corpus that --mode=evaluate tests on")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "run or fold that answers, or is exported")
_FORMAT = flags.DEFINE_enum(
    "format", None, [*itertools.chain(*cli.FORMATS.values())], "of predictions, or of an export"
)
_WINDOW = flags.DEFINE_float("window", 0.0, "seconds of a prediction; 0: as trained, or the whole")
_HOP = flags.DEFINE_float("hop", 0.0, "seconds between the starts of windows; 0: --window")
_EXPLAIN = flags.DEFINE_string("explain", None, "folder for drawings of pictures and gates")
_ENROL = flags.DEFINE_string("enrol", "", "recordings of the person whom adapted models hear")
_READING = {
    "channel": flags.DEFINE_string("channel", None, "channel that is read; as trained"),
    "raw_rate": flags.DEFINE_integer("raw_rate", None, "Hz of headerless files; as trained"),
}
_HOST = flags.DEFINE_string("host", "127.0.0.1", "address at which --mode=serve listens")
_PORT = flags.DEFINE_integer("port", 8765, "its port; 0: a free one", 0, 65535)
_NAME = flags.DEFINE_list("name", [], "names by which others know its machine; needs a token")
_OUTPUT = flags.DEFINE_string("output", "features.csv", "table of features: .csv or .arff")
_LABELS = flags.DEFINE_string("labels", "folders", "labels of features: folders, none or a table")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "this process is one of several of a run")
_AUDIO = flags.DEFINE_bool("audio", False, "let pages play recordings, if licences allow")
_FIGURES = flags.DEFINE_string("figures", None, "folder of figures and tables for a paper")
_DEBUG = flags.DEFINE_bool("debug", False, "log more, and show the traceback of an error")


def main(arguments: list[str]) -> None:
    """Runs the command; SIGTERM and a user's mistake end it with a sentence."""
    with shutdown.exits_cleanly(resumes=_MODE.value == "train", debug=_DEBUG.value):
        run(_MODE.value, [Path(os.path.expanduser(argument)) for argument in arguments[1:]])


def run(mode: str, paths: list[Path]) -> None:
    """Checks flags and config, which takes a second; then imports JAX and runs the command."""
    logging.set_verbosity(logging.INFO if _DEBUG.value else logging.WARNING)  # Orbax is talkative
    many = _CONFIG.value.get("system") in MANY
    cli.check_flags(mode, cli.given_flags(), paths, many)
    form, folds = cli.choose_format(mode, _FORMAT.value), cli.parse_folds(_FOLD.value)
    workdir = files.expand(_WORKDIR.value or f"runs/{_config_file().stem}").absolute()
    checkpoint = files.expand(_CHECKPOINT.value or workdir)
    enrol = [files.expand(_ENROL.value)] if _ENROL.value else []
    explain = files.expand(_EXPLAIN.value) if _EXPLAIN.value else None
    drawn = files.expand(_FIGURES.value) if _FIGURES.value else None
    output, labels = files.expand(_OUTPUT.value), str(files.expand(_LABELS.value))
    reading = {name: flag.value for name, flag in _READING.items() if flag.present}
    config = configuration.read(workdir) if mode in ("evaluate", "report") else _CONFIG.value
    for experiment in configuration.experiments(config) if mode == "evaluate" else ():
        experiment.update(reading)
    # These follow the models' config.
    follows_config = mode not in ("predict", "compare", "export", "serve")
    if follows_config:
        check(config, mode, workdir)

    if drawn is not None:
        from ds_jax.report import figures

        figures.check(drawn)
    from ds_jax.runtime import processes

    command = importlib.import_module(f"ds_jax.commands.{mode}")  # others import more
    processes.start(_DISTRIBUTED.value)
    shutdown.listen()
    load = None
    if follows_config and mode != "features":  # the others read no corpora
        load = _corpora(config, workdir).load
    described = configuration.last_member(config)
    commands = {
        "train": lambda: _train(config, load, workdir, folds, drawn),
        "evaluate": lambda: _ensemble().evaluate_on(
            config, load, workdir, _EVAL_ON.value or config.corpus, drawn
        ),
        "predict": lambda: command.run(
            checkpoint,
            paths,
            form,
            _WINDOW.value,
            _HOP.value,
            explain,
            reading,
            enrol,
        ),
        "features": lambda: command.run(config, paths, output, labels),
        "compare": lambda: command.run(paths, workdir if _WORKDIR.value else None, drawn),
        "report": lambda: _ensemble().report_finished(config, load, workdir, drawn),
        "export": lambda: command.run(
            checkpoint, workdir / command.FORMATS[form][0] if _WORKDIR.value else None, form
        ),
        "serve": lambda: command.run(
            checkpoint, _HOST.value, _PORT.value, reading, enrol, _NAME.value
        ),
        "corpus": lambda: command.run(
            config, load(described, config.corpus, describes=True), workdir
        ),
    }
    if mode in ("predict", "serve") and not _CHECKPOINT.value:
        print(f"without --checkpoint, the models of {workdir} answer", file=sys.stderr, flush=True)
    commands[mode]()


def check(config: ConfigDict, mode: str, workdir: Path) -> None:
    """Checks all of a config that needs no JAX, and completes its paths and names of corpora."""
    configuration.check_fields(config, SCHEMAS)
    configuration.expand_paths(config)
    if config.system not in MANY:  # which check their experiments themselves
        from ds_jax.systems import base as systems

        systems.check(config)
    if mode in ("train", "corpus"):
        from ds_jax.features import embeddings

        embeddings.pin(config)
    if mode == "features":
        return
    corpora = _corpora(config, workdir)
    if mode == "evaluate" and _EVAL_ON.value:
        corpora.check("--eval_on", _EVAL_ON.value)
        return
    for field in ("corpus", "elra", "emomatch"):
        if field in config:
            config[field] = corpora.check(field, config[field])
    for name in config.get("corpora", ()):
        corpora.check("corpora", name)
    if mode == "train" and "eval_on" in config:
        config.eval_on = tuple(corpora.check("eval_on", name) for name in config.eval_on)
    for top in (config, *(row.experiment for row in config.get("rows", {}).values())):
        for experiment in configuration.experiments(top) if "corpus" in top else ():
            experiment.auxiliary = corpora.complete(experiment.auxiliary)


def _train(
    config: ConfigDict,
    load: Callable,
    workdir: Path,
    folds: list[int] | None,
    drawn: Path | None,
) -> None:
    from datasets import prepare
    from ds_jax.commands import ladder, paper, train
    from ds_jax.training import epochs

    epochs.report_errors_once()
    if config.system == "paper":
        read = functools.partial(_read_experiment, _corpora(config, workdir))
        paper.check(config, read)
        paper.run(config, read, load, workdir, drawn)
        return
    if config.system == "ladder":
        ladder.check(config)
        ladder.run(config, load, workdir, drawn)
        return
    # A table may give other folds than the config asks for.
    train.check(config, folds if config.corpus in prepare.KNOWN else None)
    files.check_writable(workdir)  # before corpora are prepared, which can take hours
    for name in config.eval_on:  # first: they may be missing
        load(configuration.last_member(config), name)
    finished = _ensemble().run(config, load, workdir, folds)
    for name in config.eval_on if finished else ():
        _ensemble().evaluate_on(config, load, workdir, name)


def _ensemble() -> ModuleType:
    from ds_jax.commands import ensemble  # here, since answers of finished models need no training

    return ensemble


def _corpora(config: ConfigDict, workdir: Path):
    """Returns where the corpora of a config are found, see `datasets.prepare.Corpora`."""
    from datasets import prepare

    trains = _MODE.value == "train"
    if config.get("synthetic"):
        folders = workdir / "corpora", workdir / "prepared"
        return prepare.Corpora(*folders, True, _AUDIO.value, trains)
    raw = files.expand(_CORPORA.value)
    if not raw.is_dir() and (_CORPORA.present or os.environ.get("DS_JAX_CORPORA")):
        given = "--corpora_dir" if _CORPORA.present else "$DS_JAX_CORPORA"
        raise FileNotFoundError(f"{given}={_CORPORA.value}: there is no such folder")
    data = files.expand(_DATA.value)
    return prepare.Corpora(raw, data, False, _AUDIO.value, trains)


def _config_file() -> Path:
    return Path(flags.FLAGS["config"].config_filename)


def _read_experiment(corpora, name: str) -> ConfigDict:
    """Reads the config of a name, such as "ds_am_elra", from the folder of the config file."""
    experiment = configuration.load(_config_file().with_stem(name))
    configuration.check_fields(experiment, SCHEMAS)
    configuration.expand_paths(experiment)
    for each in configuration.experiments(experiment):
        each.auxiliary = corpora.complete(each.auxiliary)
    return experiment


def _open_streams() -> None:
    """Lets anything be printed in every locale, and nowhere if a shell has closed the streams."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    encoding = None if "PYTHONIOENCODING" in os.environ else "utf-8"
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(encoding=encoding, errors="backslashreplace")


if __name__ == "__main__":
    _open_streams()
    app.run(main, flags_parser=lambda arguments: cli.parse(arguments, QUICKSTART))

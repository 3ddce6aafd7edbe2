"""The one entry point; what a mode does is in the file of ds_jax/ that `run` calls."""

import functools
import os
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from ds_jax import config as configuration
from ds_jax.runtime import shutdown

QUICKSTART = str(Path(__file__).parent / "configs" / "quickstart.py")
_CONFIG = config_flags.DEFINE_config_file("config", None, "the experiment; default the quick start")
_MODE = flags.DEFINE_enum("mode", "train", configuration.MODES, "what to do")
_FOLD = flags.DEFINE_string("fold", "", "folds to run, such as 3 or 0-4; all without")
_WORKDIR = flags.DEFINE_string("workdir", "", "the run's files; default runs/<config name>")
_RAW = os.environ.get("DS_JAX_CORPORA") or "corpora"
_CORPORA = flags.DEFINE_string("corpora_dir", _RAW, "raw recordings, a folder a corpus")
_DATA = flags.DEFINE_string("data_dir", "data", "prepared corpora")
_EVAL_ON = flags.DEFINE_string("eval_on", "", "the corpus that --mode=evaluate tests on")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "a run or a fold, to predict or export")
_FORMAT = flags.DEFINE_enum("format", "table", ("table", "csv", "json"), "of predictions")
_WINDOW = flags.DEFINE_float("window", 0.0, "seconds judged together; 0: as trained, or the whole")
_HOP = flags.DEFINE_float("hop", 0.0, "seconds between the starts of windows; 0: --window")
_EXPLAIN = flags.DEFINE_string("explain", None, "folder for pictures of what the gates let through")
_OUTPUT = flags.DEFINE_string("output", "features.csv", "of --mode=features: .csv or .arff")
_LABELS = flags.DEFINE_string("labels", "folders", "of --mode=features: folders, none or a table")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "one of several processes of one run")
_AUDIO = flags.DEFINE_bool("audio", False, "let report.html play its errors, if licences allow")
_DEBUG = flags.DEFINE_bool("debug", False, "log more, and show where an error comes from")


def run(paths: list[Path]) -> None:
    """Does what the flags say; imports late, so that --help and a wrong flag answer at once."""
    from datasets import prepare, synthetic
    from ds_jax.commands import compare, export, features, report, train
    from ds_jax.runtime import processes

    # isort: split
    from ds_jax.commands import corpus, evaluate, paper, predict
    from ds_jax.systems import base as systems

    mode, given = _MODE.value, [name for name in flags.FLAGS if flags.FLAGS[name].present]
    logging.set_verbosity(logging.INFO if _DEBUG.value else logging.WARNING)  # Orbax is talkative
    configuration.check_flags(mode, given, paths, _CONFIG.value.get("system"))
    processes.start(_DISTRIBUTED.value)
    shutdown.listen()
    file = Path(flags.FLAGS["config"].config_filename)
    workdir = Path(_WORKDIR.value or f"runs/{file.stem}").absolute()
    checkpoint = Path(_CHECKPOINT.value or workdir)
    chosen = configuration.chosen_folds(_FOLD.value)
    config = configuration.of_mode(mode, _CONFIG.value, workdir)
    read_experiment = functools.partial(configuration.load_beside, file)
    if config is not None:  # an impossible one ends the run before any work
        prepare.complete_names(config)
        if config.get("system") == "paper":
            paper.check(config, read_experiment)
        else:
            train.check(config, chosen) if mode == "train" else systems.check(config)
    if mode == "predict":
        how = _FORMAT.value, _WINDOW.value, _HOP.value, _EXPLAIN.value
        return predict.run(checkpoint, paths, *how)
    if mode == "features":
        return features.run(config, paths, Path(_OUTPUT.value), _LABELS.value)
    if mode == "export":
        return export.run(checkpoint, workdir / "export" if _WORKDIR.value else None)
    if mode == "compare":
        return compare.run(paths, workdir if _WORKDIR.value else None)
    raw = workdir / "corpora" if config.synthetic else Path(_CORPORA.value)
    data = workdir / "prepared" if config.synthetic else Path(_DATA.value)
    prepare.check_names(config, configuration.corpora(config, mode, _EVAL_ON.value), raw)
    if config.synthetic:
        processes.say("SYNTHETIC SPEECH: what follows proves the plumbing and nothing else.")
        if processes.is_first_process():
            synthetic.write_corpora(raw)
        processes.wait_for_others("synthetic")
    load = functools.partial(prepare.load, raw, data, config.synthetic, _AUDIO.value)
    if mode == "evaluate":
        evaluate.run(workdir, load(config, _EVAL_ON.value or config.corpus))
    elif mode == "report":
        report.run(config, load(config, config.corpus), workdir)
    elif mode == "corpus":
        corpus.run(config, load(config, config.corpus), workdir)
    elif config.system == "paper":
        paper.run(config, read_experiment, load, workdir)
    else:
        others = [load(config, name) for name in config.eval_on]  # first: they may be missing
        if train.run(config, load(config, config.corpus), workdir, chosen):
            for other in others:
                evaluate.run(workdir, other)


def main(arguments: list[str]) -> None:
    """Runs; SIGTERM and a user's mistake end it with a sentence, and --debug shows where from."""
    with shutdown.exits_cleanly(goes_on=_MODE.value == "train", debug=_DEBUG.value):
        run([Path(argument) for argument in arguments[1:]])


if __name__ == "__main__":
    app.run(main, flags_parser=lambda arguments: configuration.parse(arguments, QUICKSTART))

"""Trains, cross-validates, evaluates, predicts, extracts features: the one entry point."""

import os
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from ds_jax import config as configuration

QUICKSTART = str(Path(__file__).parent / "configs" / "quickstart.py")
_CONFIG = config_flags.DEFINE_config_file("config", None, "the experiment; default the quick start")
_MODE = flags.DEFINE_enum("mode", "train", configuration.MODES, "what to do")
_FOLD = flags.DEFINE_string("fold", "", "folds to run, such as 3 or 0-4; all without")
_WORKDIR = flags.DEFINE_string("workdir", "", "the run's files; default runs/<config name>")
_RAW = os.environ.get("DS_JAX_CORPORA", "corpora")
_CORPORA = flags.DEFINE_string("corpora_dir", _RAW, "raw recordings, a folder a corpus")
_DATA = flags.DEFINE_string("data_dir", "data", "prepared corpora")
_EVAL_ON = flags.DEFINE_string("eval_on", "", "the corpus that --mode=evaluate tests on")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "a run's or fold's folder, for --mode=predict")
_FORMAT = flags.DEFINE_enum("format", "table", ("table", "csv", "json"), "of predictions")
_WINDOW = flags.DEFINE_float("window", 0.0, "seconds judged together; 0: as trained, or the whole")
_HOP = flags.DEFINE_float("hop", 0.0, "seconds between the starts of windows; 0: --window")
_EXPLAIN = flags.DEFINE_string("explain", None, "folder for pictures of what the gates let through")
_OUTPUT = flags.DEFINE_string("output", "features.csv", "of --mode=features: .csv or .arff")
_LABELS = flags.DEFINE_string("labels", "folders", "of --mode=features: folders, none or a table")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "one of several processes of one run")
_DEBUG = flags.DEFINE_bool("debug", False, "log more, and show where an error comes from")


def run(paths: list[Path]) -> None:
    """Does what the flags say; imports late, so that --help and a wrong flag answer at once."""
    from datasets import prepare, synthetic
    from ds_jax import compare, corpus, cross_validation, devices, paper, systems, transfer
    from ds_jax.representation import settings

    logging.set_verbosity(logging.INFO if _DEBUG.value else logging.WARNING)  # Orbax is talkative
    given = [name for name in flags.FLAGS if flags.FLAGS[name].present]
    configuration.check_flags(_MODE.value, given, paths, _CONFIG.value.system)
    devices.start(_DISTRIBUTED.value)
    file = Path(flags.FLAGS["config"].config_filename)
    workdir = Path(_WORKDIR.value or f"runs/{file.stem}").absolute()
    if _MODE.value == "predict":
        from ds_jax import predict

        checkpoint, windows = Path(_CHECKPOINT.value or workdir), (_WINDOW.value, _HOP.value)
        return predict.run(checkpoint, paths, _FORMAT.value, *windows, _EXPLAIN.value)
    if _MODE.value == "features":
        from ds_jax import deep_features

        return deep_features.run(_CONFIG.value, paths, Path(_OUTPUT.value), _LABELS.value)
    if _MODE.value == "compare":
        return compare.run(paths, workdir if _WORKDIR.value else None)
    config = _CONFIG.value if _MODE.value == "train" else configuration.read(workdir)
    prepare.complete_names(config)
    if config.system != "paper":
        configuration.check(config)
        systems.check(config)  # an impossible one ends the run before any work
    raw, prepared = Path(_CORPORA.value), Path(_DATA.value)
    if config.synthetic:
        raw, prepared = workdir / "corpora", workdir / "prepared"
        logging.set_verbosity(logging.ERROR)  # they are smaller than what they are named after
        devices.say("SYNTHETIC SPEECH: what follows proves the plumbing and nothing else.")
        if devices.is_first_process():
            synthetic.write_corpora(raw)
        devices.wait_for_others("synthetic")

    def load(experiment, name: str) -> corpus.Corpus:
        name = prepare.full_name(name)
        if config.synthetic and name not in synthetic.NAMES:
            raise ValueError(f"{name}: synthetic speech is tested on {synthetic.NAMES} only")
        return corpus.load(prepare.prepare(name, raw, prepared, settings(experiment)), name)

    if config.system == "paper":
        return paper.run(
            config, lambda name: configuration.load(file.with_name(f"{name}.py")), load, workdir
        )
    if _MODE.value == "evaluate":
        return transfer.run(workdir, load(config, _EVAL_ON.value or config.corpus))
    chosen = configuration.chosen_folds(_FOLD.value)
    others = [load(config, name) for name in config.eval_on]  # before training: may be missing
    if cross_validation.run(config, load(config, config.corpus), workdir, chosen):
        for other in others:
            transfer.run(workdir, other)


def main(arguments: list[str]) -> None:
    """Runs, and turns a user's mistake into one sentence."""
    try:
        run([Path(argument) for argument in arguments[1:]])
    except (ValueError, OSError, FloatingPointError) as error:
        if _DEBUG.value:
            raise
        sys.exit(f"error: {error}")  # --debug shows where


if __name__ == "__main__":
    app.run(main, flags_parser=lambda arguments: configuration.parse(arguments, QUICKSTART))

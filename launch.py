"""Trains, cross-validates, evaluates and predicts: the one entry point. See README.md."""

import os
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from ds_jax import config as configuration

FLAGS = flags.FLAGS
QUICKSTART = str(Path(__file__).parent / "configs" / "quickstart.py")
_CONFIG = config_flags.DEFINE_config_file("config", None, "the experiment; default the quick start")
_MODE = flags.DEFINE_enum("mode", "train", ["train", "evaluate", "predict"], "what to do")
_FOLD = flags.DEFINE_string("fold", "", "folds to run, such as 3 or 0-4; all without")
_WORKDIR = flags.DEFINE_string("workdir", "", "the run's files; default runs/<config name>")
_CORPORA = flags.DEFINE_string(
    "corpora_dir", os.environ.get("DS_JAX_CORPORA", "corpora"), "raw recordings, a folder a corpus"
)
_DATA = flags.DEFINE_string("data_dir", "data", "prepared corpora")
_EVAL_ON = flags.DEFINE_string("eval_on", "", "the corpus that --mode=evaluate tests on")
_CHECKPOINT = flags.DEFINE_string("checkpoint", "", "a run's or fold's folder, for --mode=predict")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "one of several processes of one run")
_DEBUG = flags.DEFINE_bool("debug", False, "log more, and show where an error comes from")


def run(recordings: list[str]) -> None:
    """Does what the flags say."""
    # Imported here, so that --help and a wrong flag answer at once.
    from datasets import prepare, synthetic
    from ds_jax import corpus, cross_validation, devices, inference, picture, predict, transfer

    if not _DEBUG.value:
        logging.set_verbosity(logging.WARNING)  # Orbax tells of every file it touches
    configuration.check_flags(_MODE.value, [name for name in FLAGS if FLAGS[name].present])
    devices.start(_DISTRIBUTED.value)
    config_name = Path(FLAGS["config"].config_filename).stem
    workdir = Path(_WORKDIR.value or f"runs/{config_name}").absolute()
    if _MODE.value == "predict":
        predict.run(Path(_CHECKPOINT.value or workdir), [Path(name) for name in recordings])
        return
    if recordings:
        raise ValueError(f"{recordings[0]!r} is no flag; recordings belong to --mode=predict")
    config = _CONFIG.value if _MODE.value == "train" else configuration.read(workdir)
    configuration.check(config)
    inference.create_network(config)  # an impossible one ends the run before any work
    raw, prepared = Path(_CORPORA.value), Path(_DATA.value)
    if config.synthetic:
        raw, prepared = workdir / "corpora", workdir / "prepared"
        logging.set_verbosity(logging.ERROR)  # they are smaller than what they are named after
        devices.say("SYNTHETIC SPEECH: what follows proves the plumbing and nothing else.")
        if devices.is_first_process():
            synthetic.write_corpora(raw)
        devices.wait_for_others("synthetic")
    config.corpus = prepare.full_name(config.corpus)

    def load(name: str) -> corpus.Corpus:
        name = prepare.full_name(name)
        if config.synthetic and name not in synthetic.NAMES:
            raise ValueError(
                f"{name}: a run on synthetic speech is tested on {synthetic.NAMES} only"
            )
        settings = picture.PictureSettings(**config.picture)
        return corpus.load(prepare.prepare(name, raw, prepared, settings), name)

    if _MODE.value == "evaluate":
        transfer.run(workdir, load(_EVAL_ON.value or config.corpus))
        return
    chosen = configuration.chosen_folds(_FOLD.value)
    others = [load(name) for name in config.eval_on]  # before training: they may be missing
    if cross_validation.run(config, load(config.corpus), workdir, chosen):
        for other in others:
            transfer.run(workdir, other)


def parse(arguments: list[str]) -> list[str]:
    """Parses the flags, config fields included."""
    try:
        configuration.check_arguments(arguments, QUICKSTART)
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"error: {error}")
    if not any(argument.partition("=")[0] in ("--config", "-config") for argument in arguments):
        arguments = [arguments[0], f"--config={QUICKSTART}", *arguments[1:]]
    return app.parse_flags_with_usage(arguments)


def main(arguments: list[str]) -> None:
    """Runs, and turns a user's mistake into one sentence."""
    try:
        run(arguments[1:])
    except (ValueError, OSError, FloatingPointError) as error:
        if _DEBUG.value:
            raise
        sys.exit(f"error: {error}")  # --debug shows where


if __name__ == "__main__":
    app.run(main, flags_parser=parse)

"""Trains, cross-validates, evaluates and predicts: the one entry point. See README.md."""

import os
import sys
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

FLAGS = flags.FLAGS
_CONFIG = config_flags.DEFINE_config_file("config", "configs/quickstart.py", "the experiment")
_MODE = flags.DEFINE_enum(
    "mode", "train", ["train", "evaluate", "predict"], "what to do; train also reports"
)
_FOLD = flags.DEFINE_string("fold", "", "folds to run, such as 3 or 0-4; all without")
_WORKDIR = flags.DEFINE_string("workdir", "", "the run's files; default runs/<config name>")
_CORPORA = flags.DEFINE_string(
    "corpora_dir", os.environ.get("DS_JAX_CORPORA", "corpora"), "raw recordings, a folder a corpus"
)
_DATA = flags.DEFINE_string("data_dir", "data", "prepared corpora")
_EVAL_ON = flags.DEFINE_string("eval_on", "", "the corpus that --mode=evaluate tests on")
_CHECKPOINT = flags.DEFINE_string(
    "checkpoint", "", "a run's or a fold's folder, for --mode=predict"
)
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "one of several processes of one run")
_DEBUG = flags.DEFINE_bool("debug", False, "log more, and show where an error comes from")


def run(recordings: list[str]) -> None:
    """Does what the flags say."""
    # Imported here, so that --help and a wrong flag answer at once.
    import datasets.prepare
    import datasets.synthetic
    from ds_jax import corpus, cross_validation, devices, picture, predict, transfer

    if not _DEBUG.value:
        logging.set_verbosity(logging.WARNING)  # Orbax tells of every file it touches
    devices.start(_DISTRIBUTED.value)
    if _MODE.value == "predict":
        predict.run(Path(_CHECKPOINT.value or workdir()), [Path(name) for name in recordings])
        return
    if recordings:
        raise ValueError(f"{recordings[0]!r} is no flag; recordings belong to --mode=predict")
    config = _CONFIG.value
    if _MODE.value == "evaluate":
        config = transfer.read_config(workdir())
    raw, prepared = Path(_CORPORA.value), Path(_DATA.value)
    if config.synthetic:
        raw, prepared = workdir() / "corpora", workdir() / "prepared"
        devices.say("SYNTHETIC SPEECH: what follows proves the plumbing and nothing else.")
        datasets.synthetic.write_corpora(raw)
    config.corpus = datasets.prepare.full_name(config.corpus)

    def load(name: str) -> corpus.Corpus:
        name = datasets.prepare.full_name(name)
        settings = picture.PictureSettings(**config.picture)
        return corpus.load(datasets.prepare.prepare(name, raw, prepared, settings), name)

    if _MODE.value == "evaluate":
        transfer.run(workdir(), load(_EVAL_ON.value or config.corpus))
        return
    cross_validation.run(config, load(config.corpus), workdir(), chosen_folds(_FOLD.value))
    if not _FOLD.value:
        for name in config.eval_on:
            transfer.run(workdir(), load(name))


def workdir() -> Path:
    """Where the run's files are."""
    config_file = Path(FLAGS["config"].config_filename)
    return Path(_WORKDIR.value or f"runs/{config_file.stem}").absolute()


def chosen_folds(text: str) -> list[int] | None:
    """Reads `3` or `0-4`; None for all folds."""
    if not text:
        return None
    first, _, last = text.partition("-")
    if not first.isdecimal() or not (last or first).isdecimal():
        raise ValueError(f"--fold={text}: give a number such as 3, or a range such as 0-4")
    return list(range(int(first), int(last or first) + 1))


def main(arguments: list[str]) -> None:
    """Runs, and turns a user's mistake into one sentence."""
    try:
        run(arguments[1:])
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        if _DEBUG.value:
            raise
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    app.run(main)

"""The ladder: what each part of DS-AM's second form is worth, on three open corpora.

    python launch.py --config=configs/ladder.py

runs each row on each corpus and with each seed, and writes runs/ladder/ladder.md and ladder.json
after each run: scores with intervals, the difference of each row to that from which it differs,
and of those of `headlines` to the `references` as well, also over all corpora, with intervals and p
values, which Holm's method corrects over the page; minutes, and the commands. Runs that are done
are not made again; the cells of a missing corpus, or of a run that fails, say so.
`--config.only="('statistics','no_gate')"` runs these rows alone, and
`--config.seeds="(0,1,2)"` with three seeds; those that a row has are tested together.

A row is an experiment of its own, and `after` names the row from which it differs, in what its
title says; `statistics`, `best`, `and_ridge`, `fused` and `speech_ridge` differ as whole systems.
`<corpus>/<row>/seed_0/config.json` below the ladder's folder has all fields. Each row may be
changed, left out or added in a copy of this file. A row on another backbone than VGG16 has a file
of weights of its own, `--config.rows.NAME.experiment.weights`. ComParE needs openSMILE, whose
licence is non-commercial, and Smart Turn `pip install onnxruntime`.
"""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the experiments."""
    config = ConfigDict()
    config.system = "ladder"
    config.weights = ""  # file of VGG16's ImageNet weights, for all rows on it; see configs/base.py
    config.seeds = (0,)
    config.only = ()  # names of rows; () runs all
    # Which are compared with the references.
    config.headlines = ("statistics", "best", "fused", "speech_ridge")
    config.references = ("compare_svc", "ds_svc")
    config.corpora = ConfigDict(sort_keys=False)
    for name, protocol, file in (
        ("emodb", "leave_one_speaker_out", ""),
        ("emovo", "leave_one_speaker_out", ""),
        ("ravdess", "speakers", base.EMOBOX_FOLDS),
    ):
        folds = {"protocol": protocol, "count": 10, "seed": 0, "file": file}
        config.corpora[name] = ConfigDict(folds)
    config.rows = ConfigDict(sort_keys=False)

    def add(
        name: str, title: str, after: str, use: Callable, changes: Mapping | None = None
    ) -> None:
        experiment = base.get_config()
        use(experiment)
        experiment.update_from_flattened_dict(changes or {})
        config.rows[name] = ConfigDict({"title": title, "after": after, "experiment": experiment})

    add("compare_svc", "ComParE + SVC", "", lambda c: base.use_svc(c, "compare", "linear"))
    add("compare_ridge", "ComParE + ridge", "compare_svc", lambda c: base.use_ridge(c, "compare"))
    add("wu_ridge", "Wu's measures + ridge", "", lambda c: base.use_ridge(c, "wu"))
    add("smart_turn", "Smart Turn + ridge", "compare_ridge", _use_smart_turn)
    add("ds_svc", "DS-SVC", "", base.use_ds_svc)
    add("squares", "a ridge in place of the SVC", "ds_svc", _use_ridge_on_squares)
    timeline = {"picture.layout": "timeline"}
    add("scale", "a fixed time scale, a row a band", "squares", _use_ridge_on_squares, timeline)
    title = "as DS-AM's: 64 bands, 64 ms, a floor, grey, centred as Keras does"
    add("means", title, "scale", base.use_ds_ridge, {"model.pooling": "mean"})
    add("ds_ridge", "deviations beside means", "means", base.use_ds_ridge)
    add("rows", "rows of frequencies", "ds_ridge", base.use_ds_ridge, {"model.pooling": "rows"})
    add("paper", "DS-AM of the paper, 128 pixels, block 4 frozen", "", _use_paper)
    add("statistics", "DS-AM's second form", "paper", base.use_ds_am_statistics)
    for name, title, changes in (
        ("band_means", "differences to band means", {"picture.subtract_band_means": True}),
        ("bands_128", "128 bands", {"picture.mel_bands": 128}),
        ("block_4", "block 4 alone", {"model.heads": ("block4_pool",), "model.loss_weights": (1,)}),
        ("block_4_trained", "block 4 trained too", {"model.freeze": "block3"}),
        ("frames_512", "frames of 32 ms", {"picture.n_fft": 512}),
        ("no_floor", "no floor", {"picture.floor_db": 0.0}),
        ("no_gate", "no gate", {"model.gate": False}),
        ("no_smoothing", "no label smoothing", {"train.label_smoothing": 0.0}),
        (
            "dev_speaker",
            "a development speaker, who does not train, chooses the epoch",
            {"select_on": "dev"},
        ),
        ("no_crops", "no crops but to 3.07 s", {"train.least_share": 1.0}),
        ("no_masks", "nothing hidden", {"train.most_hidden": 0.0}),
        ("mixup", "mixed recordings", {"train.mixup": 0.2}),
        # A third of the epochs, since two variants make each three times as long.
        ("pitches", "2 semitones up and down too, 5 epochs", _augmented("pitch=-2", "pitch=2")),
        ("tracts", "other vocal tracts too, 5 epochs", _augmented("tract=0.9", "tract=1.1")),
        ("speeds", "other speeds too, 5 epochs", _augmented("speed=0.9", "speed=1.1")),
        ("with_noise", "with noise too, 5 epochs", _augmented("noise=10", "noise=20")),
        # Pictures as many as recordings, by a generator and by a variant.
        (
            "generated",
            "generated pictures too, 8 epochs",
            {"generate.share": 1.0, "train.epochs": 8},
        ),
        (
            "faster",
            "1.1 times the speed too, 8 epochs",
            {"variants": ("speed=1.1",), "train.epochs": 8},
        ),
        ("trimmed", "silence trimmed at 50 dB", {"trim": 50.0}),
        ("viridis", "viridis colours", {"picture.colour_map": "viridis"}),
    ):
        add(name, title, "statistics", base.use_ds_am_statistics, changes)
    add("best", "DS-AM's best: means over pictures and seeds", "statistics", base.use_ds_am_best)
    add("and_ridge", "and one ridge on the same pictures", "best", base.use_ds_am_fused)
    add(
        *("fused", "the ridge on ComParE and Wu's measures too", "and_ridge"),
        lambda c: base.use_ds_am_fused(c, "compare", "wu"),
    )
    add(
        *("speech_ridge", "one ridge on pictures, Wu's measures and Smart Turn", "smart_turn"),
        lambda c: base.use_joined_ridges(c, "wu", "embeddings"),
    )
    return config


def _augmented(*variants: str) -> dict[str, object]:
    return {"variants": variants, "train.epochs": 5}


def _use_ridge_on_squares(config: ConfigDict) -> None:
    """Changes a config to a ridge on what DS-SVC reads: means over the squares of the paper."""
    base.use_ds_ridge(config)
    config.model.pooling = "mean"
    config.picture = base.get_config().picture
    config.picture.preprocessing = "deepspectrum"


def _use_smart_turn(config: ConfigDict) -> None:
    base.use_ridge(config, "embeddings")
    base.use_smart_turn(config)


def _use_paper(config: ConfigDict) -> None:
    config.picture.size, config.train.batch_size = 128, 16
    config.model.freeze = "block4"

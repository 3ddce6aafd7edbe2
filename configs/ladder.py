"""The ladder: what each change of DS-AM's second form is worth, on three open corpora.

    python launch.py --config=configs/ladder.py

runs each row on each corpus and with each seed, and writes runs/ladder/ladder.md and ladder.json
after each run: scores with intervals, differences to the row that a row changes and to two
references, with p values that Holm's method adjusts over the page, and minutes. Runs that are done
are not made again, a missing corpus leaves its cells empty, and one that fails says why.
`--config.only="('frames_1024','no_gate')"` runs these rows alone, and
`--config.seeds="(0,1,2)"` each row with three seeds, which are then tested together.

A row is an experiment of its own, to which `after` names the row that it changes. Nobody is heard
in both training and test. ComParE needs openSMILE, whose licence is non-commercial.
"""

from collections.abc import Callable, Mapping

from ml_collections import ConfigDict

from configs import base


def get_config() -> ConfigDict:
    """Returns the experiments."""
    config = ConfigDict()
    config.system = "ladder"
    config.weights = ""  # file of VGG16's ImageNet weights, see configs/base.py
    config.seeds = (0,)
    config.only = ()  # names of rows; () runs all
    config.references = ("compare_svc", "ds_svc")  # the rows that all others are compared with
    config.corpora = ConfigDict()
    for name, protocol, count in (
        ("emodb", "leave_one_speaker_out", 10),
        ("emovo", "leave_one_speaker_out", 6),
        ("ravdess", "speakers", 6),
    ):
        config.corpora[name] = ConfigDict({"protocol": protocol, "count": count, "seed": 0})
    config.rows = ConfigDict()

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
    add("ds_svc", "DS-SVC", "", base.use_ds_svc)
    add("ds_ridge", "ridge, timelines and deviations", "ds_svc", base.use_ds_ridge)
    add("rows", "rows of frequencies", "ds_ridge", base.use_ds_ridge, {"model.pooling": "rows"})
    add("paper", "DS-AM of the paper, 128 pixels", "", _use_paper)
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
        ("pitches", "also 2 semitones up and down", {"variants": ("pitch=-2", "pitch=2")}),
        ("speeds", "also at other speeds", {"variants": ("speed=0.9", "speed=1.1")}),
        ("with_noise", "also with noise", {"variants": ("noise=10", "noise=20")}),
        ("trimmed", "silence trimmed at 50 dB", {"trim": 50.0}),
        ("viridis", "viridis colours", {"picture.colour_map": "viridis"}),
    ):
        add(name, title, "statistics", base.use_ds_am_statistics, changes)
    add("best", "DS-AM's best: means over pictures and seeds", "statistics", base.use_ds_am_best)
    add("fused", "and ridges on ComParE and Wu's measures", "best", base.use_ds_am_fused)
    return config


def _use_paper(config: ConfigDict) -> None:
    config.picture.size, config.train.batch_size = 128, 16
    config.model.freeze = "block3"

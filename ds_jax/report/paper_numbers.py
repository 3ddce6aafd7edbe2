"""The numbers that the paper prints (Ortega-Beltrán et al.), and those that a run compares with."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from ds_jax.data.labels import LABELS

# The two corpora of the paper. `configs/paper.py` has a field for each, here called its place, and
# the field may name another corpus.
CORPORA = {"elra": "elra_s0329", "emomatch": "emomatch_spanish_db"}
TITLES = {"elra": "ELRA-S0329", "emomatch": "EmoMatchSpanishDB"}
# The protocols that the paper's text may mean in each place, of ten folds each.
FOLDS = {"elra": ("stratified", "split_70_30"), "emomatch": ("speakers",)}
FOLD_COUNT = 10
PICTURE_SIZE = 224  # pixels
# The publications that the paper quotes for the numbers of a table.
QUOTED = {1: "Kerkeni et al.", 2: "Garcia-Cuesta et al."}


class Row(NamedTuple):
    """A system on a corpus, a row of the paper's tables 1 to 4, or a rival that the paper lacks."""

    config: str  # the name of the config file that runs the system; of a rival that and the place
    place: str  # "elra" or "emomatch"
    tables: tuple[int, ...]  # the numbers of the tables that have this row
    features: str
    system: str
    # 0 to 1, as one of these tables prints it, corrected where `SLIPS` says so; None of a rival.
    accuracy: float | None
    f1: float | None = None  # the macro F1, 0 to 1, if the paper has it
    rival: str = ""  # the name of the config file of a rival

    @property
    def title(self) -> str:
        """The row's name in the paper, for example "MSF + SVC" or "DS-AM", or a rival's."""
        named = self.features not in ("", "VGG16")
        return f"{self.features} + {self.system}" if named else self.system

    @property
    def source(self) -> str:
        """The name of the config file."""
        return self.rival or self.config


ROWS = (
    # Table 1 is quoted from Kerkeni et al.
    Row("msf_mlr_elra", "elra", (1, 3), "MSF", "MLR", 0.706),
    Row("msf_svc_elra", "elra", (1, 3), "MSF", "SVC", 0.776),
    Row("msf_lstm_elra", "elra", (1, 4), "MSF", "RNN", 0.823),
    Row("mfcc_mlr_elra", "elra", (1, 3), "MFCC", "MLR", 0.761),
    Row("mfcc_svc_elra", "elra", (1, 3), "MFCC", "SVC", 0.707),
    Row("mfcc_lstm_elra", "elra", (1, 4), "MFCC", "RNN", 0.866),
    Row("msf_mfcc_mlr_elra", "elra", (1, 3), "MSF+MFCC", "MLR", 0.824),
    Row("msf_mfcc_svc_elra", "elra", (1, 3), "MSF+MFCC", "SVC", 0.681),
    Row("msf_mfcc_lstm_elra", "elra", (1, 4), "MSF+MFCC", "RNN", 0.9005),
    # Table 2 is quoted from Garcia-Cuesta et al.
    Row("egemaps_svc_emomatch", "emomatch", (2, 3), "eGeMAPS", "SVC", 0.542, 0.522),
    Row("egemaps_xgboost_emomatch", "emomatch", (2, 3), "eGeMAPS", "XGBoost", 0.562, 0.503),
    Row("egemaps_ffnn_emomatch", "emomatch", (2, 4), "eGeMAPS", "FFNN", 0.554, 0.511),
    Row("compare_svc_emomatch", "emomatch", (2, 3), "ComParE", "SVC", 0.642, 0.589),
    Row("compare_xgboost_emomatch", "emomatch", (2, 3), "ComParE", "XGBoost", 0.642, 0.588),
    Row("compare_ffnn_emomatch", "emomatch", (2, 4), "ComParE", "FFNN", 0.596, 0.567),
    # Tables 3 and 4 add the paper's own systems.
    Row("ds_svc_elra", "elra", (3,), "VGG16", "DS-SVC", 0.821),
    Row("ds_fc_elra", "elra", (4,), "VGG16", "DS-FC", 0.975),
    Row("ds_am_elra", "elra", (4,), "VGG16", "DS-AM", 0.984),
    Row("ds_svc_emomatch", "emomatch", (3,), "VGG16", "DS-SVC", 0.525),
    Row("ds_fc_emomatch", "emomatch", (4,), "VGG16", "DS-FC", 0.659),
    Row("ds_am_emomatch", "emomatch", (4,), "VGG16", "DS-AM", 0.683),
)

# Table 7 has the accuracy of DS-AM, by (place trained on, place tested on).
CROSS = {
    ("elra", "elra"): 0.9838,
    ("elra", "emomatch"): 0.3566,
    ("emomatch", "elra"): 0.4154,
    ("emomatch", "emomatch"): 0.6420,
}

# Tables 5, 6, 8 and 9 have the scores of DS-AM, by (place trained on, place tested on): the number
# of the table, and for each label precision, recall and F1.
PER_CLASS = {
    ("elra", "elra"): (
        5,
        {
            "ANGER": (0.986, 0.992, 0.989),
            "DISGUST": (0.927, 0.991, 0.958),
            "FEAR": (0.980, 0.978, 0.979),
            "JOY": (0.996, 0.985, 0.990),
            "NEUTRAL": (0.996, 0.977, 0.986),
            "SADNESS": (0.994, 0.981, 0.987),
            "SURPRISE": (0.994, 0.989, 0.991),
        },
    ),
    ("emomatch", "emomatch"): (
        6,
        {
            "ANGER": (0.732, 0.809, 0.769),
            "DISGUST": (0.624, 0.443, 0.518),
            "FEAR": (0.711, 0.738, 0.724),
            "JOY": (0.530, 0.488, 0.508),
            "NEUTRAL": (0.710, 0.841, 0.770),
            "SADNESS": (0.643, 0.580, 0.610),
            "SURPRISE": (0.727, 0.618, 0.668),
        },
    ),
    ("elra", "emomatch"): (
        8,
        {
            "ANGER": (1.000, 0.010, 0.010),
            "DISGUST": (0.350, 0.050, 0.080),
            "FEAR": (0.380, 0.510, 0.440),
            "JOY": (0.200, 0.220, 0.210),
            "NEUTRAL": (0.350, 0.870, 0.500),
            "SADNESS": (0.110, 0.010, 0.010),
            "SURPRISE": (0.610, 0.350, 0.450),
        },
    ),
    ("emomatch", "elra"): (
        9,
        {
            "ANGER": (0.480, 0.510, 0.490),
            "DISGUST": (0.350, 0.420, 0.380),
            "FEAR": (0.420, 0.540, 0.470),
            "JOY": (1.000, 0.000, 0.010),
            "NEUTRAL": (0.610, 0.150, 0.240),
            "SADNESS": (0.330, 0.680, 0.440),
            "SURPRISE": (0.550, 0.620, 0.580),
        },
    ),
}

# The numbers of the figures with the confusion matrices, which are pictures and cannot be compared.
FIGURES = {
    ("elra", "elra"): "5a",
    ("emomatch", "emomatch"): "5b",
    ("emomatch", "elra"): "6a",
    ("elra", "emomatch"): "6b",
}

# The cells in which the paper contradicts itself.
SLIPS = (
    {
        "tables": (1, 4),
        "of": "MSF+MFCC + RNN",
        "printed": 0.905,
        "elsewhere": 0.9005,
        "note": "the text says 90.05 % and counts the gains of DS-FC and DS-AM from there, so "
        "that is taken",
    },
    {
        "tables": (4,),
        "of": "ComParE + FFNN",
        "printed": 0.554,
        "elsewhere": 0.596,
        "note": "table 2 has the latter, which is taken; the former is eGeMAPS' one row above",
    },
    {
        "tables": (7,),
        "of": "DS-AM trained and tested on EmoMatchSpanishDB",
        "printed": 0.6420,
        "elsewhere": 0.683,
        "note": "table 4 has the latter; each table is shown with its own",
    },
)


def paper_comparison(config: Mapping, tested_on: str, protocol: str, folds: int) -> dict | None:
    """Finds the paper's numbers for a run, and how the run departs from the paper's experiment.

    Args:
        config: The run's config.
        tested_on: The name of the corpus that was tested.
        protocol, folds: The protocol of the folds, and their number.

    Returns:
        `title`, `tables` (their numbers), `accuracy`, `macro_f1` and `per_class` (None where the
        paper has none) and `departures`, a phrase each; None unless the system, the corpora and the
        classes are the paper's.
    """
    places = {corpus: place for place, corpus in CORPORA.items()}
    if config["synthetic"] or not {config["corpus"], tested_on} <= set(places):
        return None
    if {*config["classes"]} != {*LABELS}:
        return None
    trained, tested = places[config["corpus"]], places[tested_on]
    parts = [config["features"]] if "features" in config else []
    name = "_".join([*parts, config["system"], tested])
    row = next((row for row in ROWS if row.config == name), None)
    if row is None or (trained != tested and row.system != "DS-AM"):
        return None
    result = {"title": row.title, "tables": list(row.tables), "accuracy": row.accuracy}
    result |= {"macro_f1": row.f1, "per_class": None}
    if row.system == "DS-AM":
        number = PER_CLASS[trained, tested][0]
        result["tables"].append(number)
        result["per_class"] = per_class(trained, tested)
    if trained != tested:
        result |= {"tables": [7, number], "accuracy": CROSS[trained, tested]}
        departures = []
        if protocol != "whole_corpus":
            several = f"here {folds} models predict together"
            departures = [f"the paper tests one model of a whole corpus, {several}"]
    else:
        departures = _departures_of_folds(config, row, protocol, folds)
    return result | {"departures": [*departures, *_departures_of_input(config)]}


def per_class(trained: str, tested: str) -> dict[str, dict[str, float]]:
    """Returns the scores of DS-AM between two places, as `metrics.per_class` names them."""
    names = ("precision", "recall", "f1")
    classes = PER_CLASS[trained, tested][1]
    return {label: dict(zip(names, classes[label], strict=True)) for label in LABELS}


def _departures_of_folds(config: Mapping, row: Row, protocol: str, folds: int) -> Iterator[str]:
    if row.tables[0] in QUOTED:
        yield f"the paper quotes this number from {QUOTED[row.tables[0]]}"
    if protocol not in FOLDS[row.place] or folds != FOLD_COUNT:
        wanted = FOLDS[row.place][0]
        yield f"the paper has {FOLD_COUNT} folds ({wanted}), here {folds} ({protocol})"


def _departures_of_input(config: Mapping) -> Iterator[str]:
    """Yields how labels, pictures, and the layers that read them, differ from the paper's."""
    if config["label_map"]:
        yield f"labels were mapped here: {', '.join(config['label_map'])}"
    if config["variants"]:
        given = ", ".join(config["variants"])
        yield f"models were trained on variants of the recordings too here ({given})"
    if config["auxiliary"]:
        given = ", ".join(config["auxiliary"])
        yield f"models were trained on recordings of other corpora too here ({given})"
    if config["trim"]:
        yield f"silence around speech was cut off here ({config['trim']:g} dB)"
    if config["channel"] != "mix":
        yield f"the {config['channel']} channel was taken here"
    if config["adapt"] == "speaker":
        yield "every recording was standardised by all recordings of its speaker here"
    if "picture" not in config:
        return
    if config["picture"]["size"] != PICTURE_SIZE:
        yield f"the paper's pictures have {PICTURE_SIZE} pixels, these {config['picture']['size']}"
    if frozen := config["model"].get("freeze"):
        yield f"the layers up to {frozen} keep their ImageNet weights here"
    if config["system"] == "ds_fc" and config["model"]["head"] == "gap":
        yield "a mean over positions stands in place of fc1 and fc2 here"
    if config["system"] == "ds_svc" and tuple(config["model"]["layers"]) != ("fc2",):
        yield f"the paper's features are fc2, here {' and '.join(config['model']['layers'])}"

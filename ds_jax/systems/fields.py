"""The values that the fields of a config can have, where no constructor checks them."""

from ml_collections import ConfigDict

from ds_jax.config import flatten
from ds_jax.runtime.errors import ConfigError, check_choice, check_number

SEEDS = ("initialisation", "order", "dropout", "augmentation", "generation")
COUNTS = ("train.epochs", "train.plateau_patience", "train.stop_patience", "generate.steps")
RATES = ("train.pretrained_learning_rate", "train.new_learning_rate")
# The smallest and the largest value of a number, which is whole if they are.
NUMBERS = {
    **dict.fromkeys(("seed", "folds.seed", *(f"seeds.{name}" for name in SEEDS)), (0, 2**31 - 1)),
    **dict.fromkeys((*COUNTS, "model.trees", "model.depth"), (1, 1_000_000)),
    **dict.fromkeys((*RATES, "model.learning_rate", "model.column_share"), (1e-12, 1.0)),
    **dict.fromkeys(("train.batch_size", "model.dense_units"), (1, 1 << 16)),
    "train.weight_decay": (0.0, 1.0),
    "train.label_smoothing": (0.0, 0.99),
    "train.mixup": (0.0, 1000.0),
    "train.least_share": (0.01, 1.0),
    "train.most_hidden": (0.0, 0.9),
    "generate.share": (0.0, 100.0),
    "model.dropout": (0.0, 0.999),
    "model.bins": (2, 1_000_000),
}
# Those of each number of a list, which is not empty.
LISTS = {
    "model.loss_weights": (0.0, 1e12),
    "model.units": (1, 1 << 16),
    "model.costs": (1e-12, 1e12),
}
CHOICES = {
    "select_on": ("dev", "test", "none"),
    "parallel": ("auto", "folds", "batch"),
    "adapt": ("none", "speaker"),
    "merging": ("mean", "kernels"),
    "model.merging": ("multi_loss", "early_fusion"),
    "model.head": ("fc", "gap"),
    "model.kernel": ("linear", "rbf"),
    "model.scaling": ("standardised", "none"),
    "model.pooling": ("mean", "statistics", "rows"),
}


def check(config: ConfigDict) -> None:
    """Checks the value of each field by itself, but not those of an ensemble's members.

    Raises:
        ConfigError: A value is impossible.
    """
    for name, value in flatten(config).items():
        if name in CHOICES:
            check_choice(name, value, CHOICES[name])
        elif name in NUMBERS:
            low, high = NUMBERS[name]
            check_number(name, value, type(low), low, high)
        elif name in LISTS:
            low, high = LISTS[name]
            kind = type(low)
            if not value or not all(isinstance(x, int | kind) and low <= x <= high for x in value):
                what = "whole numbers" if kind is int else "numbers"
                raise ConfigError(name, tuple(value), f"one or more {what} from {low} to {high}")
    if config.folds.protocol == "whole_corpus" and config.corpus in config.eval_on:
        allowed = f"without {config.corpus!r}, on all of which folds.protocol='whole_corpus' trains"
        raise ConfigError("eval_on", tuple(config.eval_on), allowed)

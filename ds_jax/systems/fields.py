"""The values that the fields of `config.model` can have."""

from ds_jax.runtime.errors import ConfigError, check_choice, check_number

# Kind and range of a number, or of each number of a list.
NUMBERS = {
    "dropout": (float, 0.0, 0.999),
    "dense_units": (int, 1, 1 << 16),
    **dict.fromkeys(("trees", "depth"), (int, 1, 1_000_000)),
    "bins": (int, 2, 1_000_000),
    **dict.fromkeys(("learning_rate", "column_share"), (float, 1e-12, 1.0)),
}
LISTS = {
    "loss_weights": (float, 0.0, 1e12),
    "units": (int, 1, 1 << 16),
    "costs": (float, 1e-12, 1e12),
}
CHOICES = {
    "merging": ("multi_loss", "early_fusion"),
    "head": ("fc", "gap"),
    "kernel": ("linear", "rbf"),
    "scaling": ("standardised", "none"),
    "pooling": ("mean", "statistics", "rows"),
}


def check(name: str, value: object) -> None:
    """Checks the value of a field by itself.

    Raises:
        ConfigError: It is impossible.
    """
    field = f"model.{name}"
    if name in CHOICES:
        check_choice(field, value, CHOICES[name])
    elif name in NUMBERS:
        check_number(field, value, *NUMBERS[name])
    elif name in LISTS:
        kind, low, high = LISTS[name]
        if not value or not all(isinstance(x, int | kind) and low <= x <= high for x in value):
            what = "whole numbers" if kind is int else "numbers"
            raise ConfigError(field, tuple(value), f"one or more {what} from {low} to {high}")

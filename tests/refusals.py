"""What is impossible in a config, by the name of its field."""

from collections.abc import Callable

import pytest

from ds_jax.runtime.errors import ConfigError


def refused_field(check: Callable, *arguments, **options) -> str:
    """The field that a check refuses."""
    with pytest.raises(ConfigError) as refused:
        check(*arguments, **options)
    return refused.value.field

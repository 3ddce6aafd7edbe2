"""Windows, DeepSpectrum's: the stretches of a recording that are looked at one by one."""

from collections.abc import Callable


def in_samples(window: float, hop: float, rate: int) -> tuple[int, int]:
    """Samples in a window, and between the starts of two.

    Args:
        window: Seconds, above 0.
        hop: Seconds between the starts of windows; 0 is window.
        rate: Hz.
    """
    length = max(1, int(window * rate))
    return length, max(1, int(hop * rate)) if hop else length


def count(total: int, step: int, larger: Callable = max) -> int:
    """How many windows DeepSpectrum takes: one for every whole hop, and at least one.

    The last ones may be shorter; what remains after the last whole hop may be in none.

    Args:
        total: Samples of the recording.
        step: Samples between the starts of windows.
        larger: `max`, or what stands for it where `total` is known to JAX alone.
    """
    return larger(total // step, 1)


def count_to_end(total: int, length: int, step: int) -> int:
    """As many, and one more where the end of the recording would be in none.

    Args:
        total: Samples of the recording.
        length: Samples in a window.
        step: Samples between the starts of windows.
    """
    found = count(total, step)
    missed = min(total - found * step, total - (found - 1) * step - length)
    return found + (missed > 0)

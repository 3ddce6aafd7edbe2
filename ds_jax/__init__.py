"""Emotion recognition from speech, as pictures, in JAX.

The functions here are the Python API, which docs/from_python.md describes. They are imported when
they are first asked for, since JAX takes seconds.
"""

import importlib
from typing import Any

_MODULES = {
    "load": "systems.finding",
    "Model": "systems.model",
    "explain": "systems.model",
    "extract_features": "systems.deep_features",
    "spectrogram": "features.axes",
    "TimeFrequency": "features.axes",
    "PictureSettings": "features.spectrogram",
}
__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module(f"{__name__}.runtime.versions").program()
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    return globals()[name]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})

"""A recording as a picture or as features: NumPy and libraries of signals, no JAX but in a twin."""

import atexit
import os
import shutil
import tempfile
from importlib.util import find_spec
from pathlib import Path

from ds_jax.runtime import files


def _give_numba_a_cache() -> None:
    """Names a temporary folder for what Numba compiles, if there is no other.

    librosa keeps it beside itself or in the user's cache, and cannot be used where neither can be
    written. Call it before librosa is imported.
    """
    if "NUMBA_CACHE_DIR" in os.environ:
        return
    librosa = find_spec("librosa")
    if librosa and os.access(Path(librosa.origin).with_name("core"), os.W_OK):
        return
    try:
        files.check_writable(files.cache_directory().with_name("numba"))
    except OSError:
        folder = tempfile.mkdtemp(prefix="numba")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["NUMBA_CACHE_DIR"] = folder


_give_numba_a_cache()

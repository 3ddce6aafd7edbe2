"""The JAX of all tests: it is strict about shapes, and compiles a program once.

Import it before JAX. What is compiled lies in `.pytest_cache`, where other tests, the other
processes of pytest-xdist and the programs that tests start find it.
"""

import os
from pathlib import Path

os.environ.update(
    KERAS_BACKEND="jax",
    JAX_COMPILATION_CACHE_DIR=str(Path(__file__).parents[1] / ".pytest_cache" / "compiled"),
    JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="0",
    JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES="-1",
    PYTHONPATH=os.pathsep.join(str(folder) for folder in Path(__file__).parents[:2]),
)

import jax
from absl import flags

from ds_jax.runtime import processes

processes.start()
flags.FLAGS.mark_as_parsed()  # grain reads them
jax.config.update("jax_numpy_rank_promotion", "raise")

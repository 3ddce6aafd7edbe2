"""The JAX of all tests: strict about shapes, and quick to compile.

Import it before JAX. XLA optimises nothing: a train step of the tiny network compiles eight times
faster and runs no slower, and `XLA_FLAGS= python -m pytest` tests what users run. What is
compiled lies in `.pytest_cache`, where other tests, the other processes of pytest-xdist and the
programs that tests start find it.
"""

import os
from pathlib import Path

os.environ.setdefault(
    "XLA_FLAGS", "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false"
)
os.environ.update(
    KERAS_BACKEND="jax",
    JAX_COMPILATION_CACHE_DIR=str(Path(__file__).parents[1] / ".pytest_cache" / "compiled"),
    # One for each process of pytest-xdist: Numba crashes where two fill a cache at once.
    NUMBA_CACHE_DIR=str(
        Path(__file__).parents[1] / ".pytest_cache" / os.environ.get("PYTEST_XDIST_WORKER", "numba")
    ),
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

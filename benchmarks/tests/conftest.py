"""Benchmarks are tested in the JAX of all tests."""

import strict  # noqa: F401

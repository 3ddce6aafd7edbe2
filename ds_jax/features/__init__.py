"""A recording as a picture or as features: NumPy and libraries of signals, no JAX but in a twin."""

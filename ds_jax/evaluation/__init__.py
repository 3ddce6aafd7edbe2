"""Evaluates predictions: scores, intervals and significance tests, in NumPy."""

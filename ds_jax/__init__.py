"""Emotion recognition from Spanish speech, as pictures, in JAX."""

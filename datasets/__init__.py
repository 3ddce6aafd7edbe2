"""TFDS builders: which file of a published corpus is which utterance."""

"""A corpus in memory, its folds, and what must not leak between their splits."""

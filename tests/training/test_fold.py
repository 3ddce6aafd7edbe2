"""What a fold remembers between epochs, and the rows that it reads."""

import numpy as np
import tiny

from ds_jax.data.extension import with_variants
from ds_jax.training.fold import FoldState, plateaus


def test_plateaus_lower_the_rates_and_gains_start_the_count_again():
    losses = [3.0, 2.0, 2.0, 2.5, 1.0, 1.1, 1.2, 1.3, 1.4]
    scales, waits = zip(*(plateaus(losses[:n], 2) for n in range(1, 10)), strict=True)
    assert waits == (0, 0, 1, 2, 0, 1, 2, 3, 4)
    np.testing.assert_allclose(scales, [1, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01, 0.001], rtol=1e-12)
    assert plateaus([], 2) == (1.0, 0)


def test_variants_train_and_neither_choose_nor_test(tmp_path):
    recorded = tiny.corpus(6)
    corpus = with_variants(recorded, [recorded])
    fold = tiny.fold(range(3), range(3, 4), range(4, 6))
    state = FoldState(tiny.config(), corpus, 0, fold, tmp_path, False)
    found = {split: rows.tolist() for split, rows in state.rows.items()}
    assert found == {"train": [0, 1, 2, 6, 7, 8], "dev": [3], "test": [4, 5]}
    assert sorted(state.order().tolist()) == found["train"]

"""Stand-ins for the experiments of the paper's tables and of the ladder."""

import paper_runs
import pytest

from ds_jax.report import paper_numbers


@pytest.fixture
def calls(monkeypatch):
    return paper_runs.stand_in(monkeypatch)


@pytest.fixture
def few(monkeypatch):
    """Tables of a few rows, where it does not matter which."""
    names = ("msf_mlr_elra", "ds_am_elra", "egemaps_svc_emomatch", "ds_am_emomatch")
    rows = tuple(row for row in paper_numbers.ROWS if row.config in names)
    monkeypatch.setattr(paper_numbers, "ROWS", rows)

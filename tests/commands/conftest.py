"""Stand-ins for the experiments of pages, and waves for exported models."""

import exports
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


@pytest.fixture(scope="module")
def waves():
    return exports.waves()


@pytest.fixture(scope="module")
def expected(run, waves, tmp_path_factory):
    found = exports.predicted(run, waves, tmp_path_factory.mktemp("waves"))
    assert found.std(axis=0).max() > 1e-3  # the waves differ
    return found

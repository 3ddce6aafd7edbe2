"""Cells of the paper's tables, on generated corpora in the layouts of the licensed ones."""

import json

import pytest
import tiny

from datasets import prepare, synthetic
from ds_jax import config as configuration
from ds_jax.commands import paper
from ds_jax.data import corpus
from ds_jax.data.labels import LABELS
from ds_jax.features import extract
from ds_jax.report import paper_numbers


def run_tables(folder):
    """Runs the cells that are not done, and returns paper.json, paper.html and the predictions."""
    if not (folder / "corpora").exists():
        synthetic.write_corpora(folder / "corpora", speakers=4, sentences=2, elra_sentences=2)
    config = configuration.load("configs/paper.py")
    config.synthetic = True
    config.picture.size, config.model.freeze, config.model.head = 32, "block4", "gap"
    config.folds.count, config.train.epochs = 2, 1

    def load(experiment, name):
        settings = extract.settings(experiment)
        prepared = prepare.prepare(name, folder / "corpora", folder / "data", settings)
        return corpus.load(prepared, name)

    def read_experiment(name):
        return configuration.load(f"configs/{name}.py")

    with tiny.given_weights():
        paper.run(config, read_experiment, load, folder / "run")
    content = json.loads((folder / "run/paper.json").read_text())
    page = (folder / "run/paper.html").read_text()
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("predictions.csv")}
    return content, page, times


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
def test_every_cell_of_every_table_is_filled_once(tmp_path, capsys):
    pytest.importorskip("opensmile")
    content, page, before = run_tables(tmp_path)
    cells = content["cells"]
    assert {(cell["config"], cell["protocol"]) for cell in cells} == {
        (row.config, protocol) for row in paper_numbers.ROWS for protocol in ("paper", "clean")
    }
    for cell in cells:
        assert cell["status"] == "done", (cell["config"], cell["status"])
        for score in cell["ours"].values():
            assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
    assert [tuple(entry["places"]) for entry in content["ds_am"]] == list(paper_numbers.CROSS)
    for entry in content["ds_am"]:
        assert set(entry["per_class"]) == set(LABELS)
        assert sum(map(sum, entry["confusion"])) > 0
    assert "not run" not in page
    assert "failed" not in page
    capsys.readouterr()
    assert run_tables(tmp_path)[2] == before
    assert "starts" not in capsys.readouterr().out
    for table in range(1, 10):
        assert f"Table {table}" in page

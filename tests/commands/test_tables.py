"""Every cell of the paper's tables, on generated corpora in the layouts of the licensed ones."""

import json

import pytest
import tiny

from datasets import prepare, synthetic
from ds_jax import config as configuration
from ds_jax.commands import paper
from ds_jax.data import corpus
from ds_jax.data.corpus import LABELS
from ds_jax.features import representation
from ds_jax.models import pretrained
from ds_jax.report import paper_numbers


@pytest.fixture(scope="module")
def call(tmp_path_factory, narrow):
    """A function that runs what is left of all tables, small, and returns the workdir."""
    pytest.importorskip("opensmile")
    folder = tmp_path_factory.mktemp("tables")
    synthetic.write_corpora(folder / "corpora", speakers=4, sentences=2, elra_sentences=2)
    config = configuration.load("configs/paper.py")
    config.synthetic = True
    config.picture.size, config.model.freeze, config.model.head = 32, "block4", "gap"
    config.folds.count, config.train.epochs = 2, 1

    def load(experiment, name):
        settings = representation.settings(experiment)
        prepared = prepare.prepare(name, folder / "corpora", folder / "data", settings)
        return corpus.load(prepared, name)

    def run():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(pretrained, "load", lambda backbone, path, full: tiny.pretrained())
            paper.run(
                config, lambda name: configuration.load(f"configs/{name}.py"), load, folder / "run"
            )
        return folder / "run"

    return run


def test_every_cell_of_every_table_is_filled_once(call, capsys):
    workdir = call()
    content = json.loads((workdir / "paper.json").read_text())
    cells = content["cells"]
    assert {(cell["config"], cell["protocol"]) for cell in cells} == {
        (row.config, protocol) for row in paper_numbers.ROWS for protocol in ("paper", "clean")
    }
    for cell in cells:
        assert cell["status"] == "done", (cell["config"], cell["status"])
        for score in cell["ours"].values():
            assert 0 <= score["low"] <= score["value"] <= score["high"] <= 1
    assert len(content["ds_am"]) == 4  # table 7, with tables 5, 6, 8, 9 and both figures
    for entry in content["ds_am"]:
        assert set(entry["per_class"]) == set(LABELS)
        assert sum(map(sum, entry["confusion"])) > 0
    page = (workdir / "paper.html").read_text()
    for table in range(1, 10):
        assert f"Table {table}" in page
    assert "not run" not in page
    assert "failed" not in page
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("predictions.csv")}
    capsys.readouterr()
    call()
    assert "starts" not in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("predictions.csv")}

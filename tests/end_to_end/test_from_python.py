"""The Python code of the documents runs as it stands, and so does the notebook."""

import json
import re
from pathlib import Path

import matplotlib
import pytest
import recordings
import tiny

from ds_jax.commands import train

ROOT = Path(__file__).parents[2]
TOUR = ROOT / "docs" / "tour.ipynb"

matplotlib.use("Agg")


@pytest.fixture
def home(run, tmp_path, tiny_weights, monkeypatch):
    """A current folder with recordings, and a run under all names that the documents use."""
    for seed, name in enumerate(("a.wav", "my.wav", "folder/b.wav", "folder/c.wav")):
        recordings.sound(tmp_path / name, seed, 0.5)
    recordings.sounds(tmp_path / "zoe", *(f"{number}.wav" for number in range(10)))
    (tmp_path / "runs").mkdir()
    config, corpus = tiny.make("mlr")
    config.adapt = "speaker"
    assert train.run(config, corpus, tmp_path / "runs" / "robots_speaker")
    for name in ("robots", "ds_am_emodb", "quickstart"):
        (tmp_path / "runs" / name).symlink_to(run)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    matplotlib.pyplot.close("all")


def test_the_documents_programs_run(home):
    for page, at_least in (("README.md", 1), ("docs/from_python.md", 8)):
        text = (ROOT / page).read_text(encoding="utf-8")
        blocks = re.findall(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
        assert len(blocks) >= at_least
        names = {"samples": [0.1, -0.1] * 8000, "rate": 16_000}  # the README's own
        for number, block in enumerate(blocks):
            exec(compile(block, f"{page}, block {number}", "exec"), names)
    assert names["batch"].shape == (2, 7)
    assert list(names["table"].columns[:4]) == ["recording", "start", "end", "prediction"]
    assert names["matrix"].shape[0] == 2
    assert len(matplotlib.pyplot.get_fignums()) == 2


def test_the_tour_runs_and_is_kept_without_outputs(home, monkeypatch):
    cells = json.loads(TOUR.read_text(encoding="utf-8"))["cells"]
    (home / "docs").mkdir()
    monkeypatch.chdir(home / "docs")
    monkeypatch.syspath_prepend(ROOT)
    names = {}
    for number, cell in enumerate(cell for cell in cells if cell["cell_type"] == "code"):
        assert (cell["outputs"], cell["execution_count"]) == ([], None)
        exec(compile("".join(cell["source"]), f"{TOUR.name}, cell {number}", "exec"), names)
    assert names["probabilities"].shape == (2, 7)
    shapes = [len(matplotlib.pyplot.figure(n).axes) for n in matplotlib.pyplot.get_fignums()]
    assert shapes == [2, 1, 4, 4]  # with a colour bar

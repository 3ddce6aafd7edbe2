"""The benchmark of pictures, on few and short recordings."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from recordings import sounds

PROGRAM = """
from absl import app
from benchmarks import pictures
pictures.SAMPLE, pictures.COPIES, pictures.COPIES_ALL_CORES = 2, 2, 2
app.run(pictures.main)
"""


def run(*flags: str) -> subprocess.CompletedProcess:
    root = Path(__file__).parents[2]
    command = [sys.executable, "-W", "error", "-c", PROGRAM, "--seconds=0.5", "--rounds=1", *flags]
    return subprocess.run(command, cwd=root, capture_output=True, text=True)


@pytest.mark.slow
def test_it_measures_generated_and_real_recordings(tmp_path):
    sounds(tmp_path / "corpora" / "mine", "a.wav", "b.wav", "c.wav")
    done = run(f"--output={tmp_path}/found.json", f"--corpora_dir={tmp_path}/corpora")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    kinds = {"wav, 16 kHz mono", "flac, 16 kHz mono", "wav, 48 kHz stereo", "mine, wav"}
    for table in ("decoded audio to picture", "file to stored record", "parts", "all cores"):
        assert set(found[table]) == kinds
        for kind in kinds:
            assert kind in done.stdout
    for row in found["decoded audio to picture"].values():
        assert row["unlike"] < 0.01  # both sides draw the same
        assert row["ratio"] == pytest.approx(row["deepspectrum_ms"] / row["ours_ms"])
        assert row["ratio_low"] <= row["ratio"] <= row["ratio_high"]
    for kind, row in found["parts"].items():
        assert row["total"] == found["file to stored record"][kind]["ours_ms"]
        assert sum(row.values()) == pytest.approx(2 * row["total"])
        assert (row["resample"] != 0) == ("48 kHz" in kind)
    assert all(row["per_second"] > 0 for row in found["all cores"].values())


def test_a_missing_folder_is_named(tmp_path):
    done = run(f"--corpora_dir={tmp_path}/nowhere")
    assert done.returncode != 0
    assert f"{tmp_path}/nowhere: there is no such folder" in done.stderr + done.stdout

"""All files name the same version, licence and paper."""

import hashlib
import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
APACHE = "cfc7749b96f63bd31c3c42b5c471bf756814053e847c10f3eb003417bc523d30"  # LICENSE-2.0.txt


@pytest.fixture(scope="module")
def citation():
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_version_and_licence_are_the_same_everywhere(citation):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    released = re.findall(r"^## \[(\d.*?)\]", changelog, re.MULTILINE)
    assert citation["version"] == project["version"] == released[0]
    assert citation["license"] == project["license"] == "Apache-2.0"
    assert hashlib.sha256((ROOT / "LICENSE").read_bytes()).hexdigest() == APACHE


def test_the_citation_names_the_paper_that_readme_and_reports_name(citation):
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    (paper,) = citation["references"]
    assert paper["type"] == "article"
    assert paper["authors"][0]["family-names"] == "Ortega-Beltrán"
    number = paper["identifiers"][0]["value"].removeprefix("arXiv:")
    assert paper["url"] == f"https://arxiv.org/abs/{number}"
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert paper["title"] in readme
    assert f"<{paper['url']}>" in readme
    templates = (ROOT / "ds_jax" / "report" / "templates").glob("*")
    text = " ".join(path.read_text(encoding="utf-8") for path in templates)
    assert set(re.findall(r"arXiv\S*?(\d{4}\.\d{5})", text)) == {number}

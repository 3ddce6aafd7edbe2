"""What is cited is the version that there is."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]


def test_all_files_name_the_same_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    released = re.findall(r"^## \[(\d.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert citation["version"] == version
    assert released[0] == version


def test_the_citation_has_what_its_format_demands():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= set(citation)
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert paper["authors"][0]["family-names"] == "Ortega-Beltrán"


def test_the_paper_is_the_same_everywhere():
    (paper,) = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))["references"]
    number = paper["identifiers"][0]["value"]
    assert paper["url"] == f"https://arxiv.org/abs/{number.removeprefix('arXiv:')}"
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    for part in (readme.partition("recordings (.l16")[0], readme.partition("## Sources")[2]):
        assert paper["title"] in part
        assert f"<{paper['url']}>" in part
    for page in ("report", "paper"):
        template = (ROOT / "ds_jax" / f"{page}.html.jinja").read_text(encoding="utf-8")
        assert re.findall(r"arXiv\S*\d", template) == [number]

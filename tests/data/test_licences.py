"""Terms stand in one table; what people read says the same."""

import importlib
from pathlib import Path

import pytest

from datasets.prepare import KNOWN
from ds_jax.data import licences
from ds_jax.data.corpus import TITLES

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_every_published_corpus_has_terms():
    assert set(licences.OF_CORPORA) == set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_a_row_of_the_readme_is_that_of_the_table(name):
    assert f"| {TITLES[name]} | {licences.OF_CORPORA[name].corpus} |" in README
    sentence = licences.of_corpus(name)
    assert sentence == f"{TITLES[name]} is {licences.OF_CORPORA[name].corpus}"


def test_the_weights_have_a_row_as_well():
    what, terms = licences.OF_WEIGHTS.split(" are ")
    assert f"| {what} | {terms} |" in README


@pytest.mark.parametrize("name", KNOWN)
def test_what_may_be_heard_is_of_the_table_and_told(name):
    module = importlib.import_module(f"datasets.{name}.{name}_dataset_builder")
    audio = licences.OF_CORPORA[name].audio
    assert module.Builder.audio_terms == audio
    told = (ROOT / "docs" / "first_hour.md").read_text(encoding="utf-8")
    allowed, _, refused = told.partition("Only where the terms")[2].partition("refused for")
    assert TITLES[name] in (allowed if audio else refused.partition(".\n")[0])


def test_what_is_nobodys_and_what_is_ones_own():
    assert licences.of_corpus("emovo", synthetic=True).endswith("nobody's")
    assert licences.of_corpus("robots") == "robots is no published corpus: ask whoever recorded it"

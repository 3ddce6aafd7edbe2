"""Servers that many tests ask."""

import pytest
from served import TOKEN, serving

import ds_jax


@pytest.fixture(scope="module")
def model(run):
    return ds_jax.load(run)


@pytest.fixture(scope="module")
def client(model):
    with serving(model) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(model):
    with serving(model, hosts=["robot.example"], token=TOKEN) as client:
        yield client

"""Servers of the tests, and clients that speak to them."""

import contextlib
import io

import numpy as np
import soundfile
from speaking import babble
from starlette.testclient import TestClient

from ds_jax.data.labels import LABELS
from ds_jax.serving import app
from ds_jax.serving.judge import Judge
from ds_jax.serving.limits import Limits

RATE = 16_000
ADDRESS = "http://127.0.0.1:8765"
LISTEN = "ws://127.0.0.1:8765/listen"
TOKEN = "a token of the tests"


@contextlib.contextmanager
def serving(model, limits=None, fails=True, **options):
    application = app.create(Judge(model, limits or Limits()), **options)
    with TestClient(application, ADDRESS, raise_server_exceptions=fails) as client:
        yield client


def flac(samples, rate=RATE):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC")
    return file.getvalue()


def pcm(samples):
    return np.rint(samples * 32767).astype("<i2").tobytes()


def spoken(seconds=1.2, seed=0):
    """An utterance with quiet before and after."""
    quiet = np.random.default_rng(seed).normal(0, 1e-4, round((seconds + 1.4) * RATE))
    quiet[round(0.6 * RATE) :][: round(seconds * RATE)] += babble(seconds, seed)
    return quiet.astype(np.float32)


def schema_of(client, path, method, status="200"):
    described = client.get("/openapi.json").json()
    content = described["paths"][path][method]["responses"][status]["content"]
    schema = content["application/json"]["schema"]
    return described["components"]["schemas"]["Problem"] if "$ref" in schema else schema


def check_problem(answer, status, *words):
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/json"
    assert [*answer.json()] == ["error"]
    for word in words:
        assert word in answer.json()["error"]
    assert "Traceback" not in answer.text
    assert "/proc/" not in answer.text


def listen(socket, samples, rate=RATE, block=4096, **hello):
    """Speaks to the server; returns its messages after "ready", up to "end"."""
    socket.send_json({"rate": rate, **hello})
    assert socket.receive_json() == {"type": "ready", "classes": [*LABELS]}
    content = pcm(samples)
    for start in range(0, len(content), 2 * block):
        socket.send_bytes(content[start : start + 2 * block])
    socket.send_json({"type": "end"})
    messages = []
    while not messages or messages[-1]["type"] != "end":
        messages.append(socket.receive_json())
    return messages[:-1]


def shares(answer):
    return [answer["probabilities"][name] for name in LABELS]

"""The page with the microphone, in a browser whose microphone is a recording."""

import contextlib
import os
import re
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import uvicorn
from browser import CHROMIUM, Browser
from speaking import babble

import ds_jax
from ds_jax.data.labels import LABELS
from ds_jax.features import audio
from ds_jax.serving import app
from ds_jax.serving.judge import Judge
from ds_jax.serving.limits import Limits

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.slow,  # it lasts as long as the speech, and Chromium starts
]
TOKEN = "a token of the tests"
MICROPHONE = 48_000  # Hz
CORPORA = os.environ.get("DS_JAX_CORPORA")
PATIENCE = 120  # seconds


@contextlib.contextmanager
def serving(model, token):
    """Yields the address of a server in a thread."""
    config = uvicorn.Config(
        app.create(Judge(model, Limits()), token=token),
        port=0,
        log_level="error",
        ws="websockets-sansio",
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            time.sleep(0.05)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}/"
    finally:
        server.should_exit = True
        thread.join()


def microphone(path: Path, samples: np.ndarray, rate: int) -> str:
    """Writes what the microphone hears again and again; returns Chromium's flag for it."""
    quiet = np.zeros(MICROPHONE, np.float32)
    spoken = soxr.resample(samples.astype(np.float32), rate, MICROPHONE)
    soundfile.write(path, np.concatenate([quiet, spoken, quiet]), MICROPHONE, subtype="PCM_16")
    return f"--use-file-for-fake-audio-capture={path}"


def wait(page, expression):
    """Waits until an expression is true."""
    until = time.monotonic() + PATIENCE
    while not (value := page.evaluate(expression)):
        state = page.evaluate("document.getElementById('state').textContent")
        assert time.monotonic() < until, (expression, state)
        time.sleep(0.2)
    return value


def recordings():
    yield pytest.param(None, id="a made-up voice")
    folder = Path(CORPORA or "", "emodb")
    found = sorted(folder.rglob("*03a01Fa*")) if CORPORA else []
    mark = pytest.mark.skipif(not found, reason="$DS_JAX_CORPORA holds no emodb")
    yield pytest.param(found[0] if found else None, id="a recording", marks=mark)


@pytest.mark.parametrize("recording", [*recordings()])
@pytest.mark.parametrize(("width", "dark"), [(1200, False), (390, True)], ids=["desk", "phone"])
def test_what_the_microphone_hears_is_judged(run, tmp_path, recording, width, dark):
    samples, rate = (babble(1.5), 16_000) if recording is None else audio.read(recording, 16_000)
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    flags += (microphone(tmp_path / "microphone.wav", samples, rate),)
    model = ds_jax.load(run)
    with serving(model, TOKEN) as address, Browser(tmp_path / "profile", *flags) as browser:
        page = browser.open(f"{address}#token={TOKEN}", width, dark)
        assert page.evaluate("location.hash") == ""
        assert page.evaluate("document.activeElement.tagName") == "BODY"
        page.evaluate("document.getElementById('microphone').focus()")
        for kind in ("keyDown", "keyUp"):  # of the space bar, as somebody without a mouse does
            key = {"key": " ", "code": "Space", "windowsVirtualKeyCode": 32, "text": " "}
            page.command("Input.dispatchKeyEvent", type=kind, **key)
        wait(page, "document.querySelectorAll('#said li').length >= 2")
        first = page.evaluate("document.querySelector('#said li').textContent")
        found = re.fullmatch(r"([\d.]+) to ([\d.]+) s: (\w+), (\d+) %", first)
        assert found[3] in LABELS
        assert float(found[2]) - float(found[1]) == pytest.approx(len(samples) / rate, abs=0.8)
        assert page.evaluate("document.getElementById('last').textContent") == first
        shares = page.evaluate("[...document.querySelectorAll('.share')].map(e => e.textContent)")
        assert sum(int(share.removesuffix(" %")) for share in shares) == pytest.approx(100, abs=4)
        labels = page.evaluate(
            "[...document.querySelectorAll('.heard text')].map(e => e.textContent)"
        )
        assert {"1000", "frequency in Hz", "1", "time in s", "0.5"} <= {*labels}
        choices = "[...document.querySelectorAll('#layers input')]"
        assert page.evaluate(f"{choices}.length") == 1 + len(model.config.model.gates)
        before = page.evaluate("document.querySelector('.heard image').getAttribute('href')")
        page.evaluate(f"{choices}[0].click()")
        after = page.evaluate("document.querySelector('.heard image').getAttribute('href')")
        assert before != after
        colours = page.evaluate(
            "(() => { const c = document.getElementById('spectrogram');"
            "const d = c.getContext('2d').getImageData(60, 0, c.width - 140, c.height - 30).data;"
            "const s = new Set();"
            "for (let i = 0; i < d.length; i += 4) s.add(d[i]); return s.size; })()"
        )
        assert colours > 20
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        page.evaluate("document.getElementById('microphone').click()")
        wait(page, "document.getElementById('state').textContent == 'The microphone is off.'")
        assert page.complaints() == []
        assert all(
            each.startswith((address, address.replace("http", "ws"), "data:", "blob:"))
            for each in page.requests()
        )


def test_a_wrong_token_is_told(run, tmp_path):
    flags = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
    with (
        serving(ds_jax.load(run), TOKEN) as address,
        Browser(tmp_path / "profile", *flags) as browser,
    ):
        page = browser.open(f"{address}#token=wrong", 800)
        page.evaluate("document.getElementById('microphone').click()")
        wait(page, "document.getElementById('state').textContent.includes('token')")
        assert page.evaluate("document.getElementById('microphone').ariaPressed") == "false"

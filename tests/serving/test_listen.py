"""What listeners are answered, and how they are let go."""

import asyncio
import base64
import io
import re
import threading

import ml_collections
import numpy as np
import pytest
import soxr
from PIL import Image
from served import LISTEN, RATE, TOKEN, listen, pcm, serving, shares, spoken
from starlette.websockets import WebSocketDisconnect

from ds_jax.data.labels import LABELS
from ds_jax.serving import app, judge
from ds_jax.serving.judge import Judge
from ds_jax.serving.limits import Limits, Refused
from ds_jax.serving.listen import Listener, _draw
from ds_jax.systems.model import Model

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_an_utterance_is_judged_as_the_model_judges_it(client, model, rate):
    samples = spoken()
    if rate != RATE:
        samples = soxr.resample(samples, RATE, rate)
    with client.websocket_connect(LISTEN) as socket:
        begun, said = listen(socket, samples, rate)
    assert begun == {"type": "speech", "start": said["start"]}
    assert said["type"] == "utterance"
    assert said["start"] == pytest.approx(0.6, abs=0.2)
    assert said["end"] == pytest.approx(1.8, abs=0.2)
    heard = np.frombuffer(pcm(samples), "<i2").astype(np.float32) / 32768
    first, last = (round(said[name] * rate) for name in ("start", "end"))
    # Places are rounded to a thousandth of a second, and a sample more or less moves some pixels.
    wanted, other = model(heard[first:last], rate), model(heard[: last - first], rate)
    distance = np.abs(shares(said) - wanted).max()
    assert distance < 1e-2
    assert distance < np.abs(wanted - other).max() / 3
    assert said["prediction"] == max(LABELS, key=said["probabilities"].get)


def test_pictures_come_with_gates_and_axes(client, model):
    with client.websocket_connect(LISTEN) as socket:
        _, said = listen(socket, spoken(), pictures=True)
    picture, *gates = said["pictures"]
    canvas = model.config.picture.canvas
    assert picture["name"] == "spectrogram"
    assert [gate["name"] for gate in gates] == [*model.config.model.gates]
    for drawn in said["pictures"]:
        for name, size in (("image", (canvas, canvas)), ("bar", (1, 256))):
            content = base64.b64decode(drawn[name].removeprefix("data:image/png;base64,"))
            assert Image.open(io.BytesIO(content)).size == size
        assert (drawn["x_label"], drawn["y_label"]) == ("time in s", "frequency in Hz")
        times = [float(text) for _, text in drawn["x_ticks"]]
        assert 0 < times[0] < times[-1] < said["end"] - said["start"]
        tones = [float(text) for _, text in drawn["y_ticks"]]
        assert tones == sorted(tones, reverse=True)
    for gate in gates:
        assert [text for _, text in gate["bar_ticks"]] == ["0", "0.5", "1"]
        low, high = re.search(r"here ([\d.]+) to ([\d.]+)$", gate["caption"]).groups()
        assert 0 <= float(low) <= float(high) <= 1


@pytest.mark.parametrize(
    ("messages", "word"),
    [
        (["nothing"], "rate"),
        (["[]"], "rate"),
        ([b"\0\0"], "rate"),
        (["{}"], "rate=None"),
        (['{"rate": 5}'], "rate=5"),
        (['{"rate": "16000"}'], "rate='16000'"),
        (['{"rate": 16000, "model": "x"}'], "'model'"),
        (['{"rate": 16000}', b"\0"], "16-bit"),
        (['{"rate": 16000}', "hello"], "binary"),
    ],
)
def test_bad_messages_end_with_a_sentence(client, messages, word):
    with client.websocket_connect(LISTEN) as socket:
        for message in messages:
            (socket.send_text if isinstance(message, str) else socket.send_bytes)(message)
        answers = [socket.receive_json() for _ in messages]
        assert word in answers[-1]["error"]
        with pytest.raises(WebSocketDisconnect) as closed:
            socket.receive_json()
        assert closed.value.code == 1003


def test_one_utterance_that_is_refused_leaves_the_others(model, monkeypatch):
    """What is wrong with the server is told without its own words, and ends the connection."""
    samples = np.concatenate([spoken(0.8, seed) for seed in range(3)])
    ask, errors = Judge._answers, [Refused(503, "the server is busy: wait"), None, None]

    async def answers(self, *arguments, **options):
        if error := errors.pop(0):
            raise error
        return await ask(self, *arguments, **options)

    monkeypatch.setattr(Judge, "_answers", answers)
    with serving(model) as client, client.websocket_connect(LISTEN) as socket:
        said = [each for each in listen(socket, samples) if each["type"] != "speech"]
    # Utterances are judged side by side, so that any of them may be the first to ask.
    assert sorted(each["type"] for each in said) == ["unusable", "utterance", "utterance"]
    reasons = [each["reason"] for each in said if each["type"] == "unusable"]
    assert reasons == ["the server is busy: wait"]
    errors = [ValueError("a secret of a library")] * 3
    with pytest.raises(ValueError, match="a secret"):  # for whoever runs the server
        hear_an_error(model, samples)


def hear_an_error(model, samples):
    with serving(model) as client, client.websocket_connect(LISTEN) as socket:
        socket.send_json({"rate": RATE})
        socket.send_bytes(pcm(samples))
        while "error" not in (message := socket.receive_json()):
            pass
        assert "secret" not in message["error"]


def test_strangers_take_no_place_of_those_who_have_the_token(model):
    limits = Limits(strangers=1, listeners=1, greeting_seconds=0.5)
    header = {"authorization": f"Bearer {TOKEN}"}
    with serving(model, limits, token=TOKEN) as client:
        with (
            client.websocket_connect(LISTEN) as silent,
            client.websocket_connect(LISTEN) as crowded,
            client.websocket_connect(LISTEN, headers=header) as known,
        ):
            assert "1 clients" in crowded.receive_json()["error"]
            assert listen(known, np.zeros(4000)) == []
            assert "0.5 s" in silent.receive_json()["error"]
        with client.websocket_connect(LISTEN) as other:
            assert listen(other, np.zeros(4000), token=TOKEN) == []


def test_an_ensemble_of_one_kind_of_pictures_shows_them(model):
    """Its own config has no picture; that of its members has."""
    config = ml_collections.ConfigDict({"synthetic": True, "classes": [*model.classes]})
    whole = Model(config, model.settings, 2, dict, lambda enrolled: model.start)
    judging = Judge(whole, Limits())

    async def ask():
        running = asyncio.create_task(judging.run())
        _, shown = await judging.judge(spoken(), RATE, shown=True)
        running.cancel()
        return _draw(shown)

    picture, *_ = asyncio.run(ask())
    assert picture["image"].startswith("data:image/png")


def test_listeners_are_counted_and_the_silent_are_let_go(model):
    with serving(model, limits=Limits(listeners=1, silence_seconds=0.5)) as client:
        with client.websocket_connect(LISTEN) as first:
            first.send_json({"rate": RATE})
            assert first.receive_json()["type"] == "ready"
            assert client.get("/healthz").json()["listeners"] == 1
            with client.websocket_connect(LISTEN) as second:
                second.send_json({"rate": RATE})
                assert "1 clients" in second.receive_json()["error"]
            assert "0.5 s" in first.receive_json()["error"]
        with client.websocket_connect(LISTEN) as third:
            assert listen(third, np.zeros(4000)) == []
        assert client.get("/healthz").json()["listeners"] == 0


def test_a_listener_that_does_not_read_is_let_go(model):
    class Deaf:
        """A WebSocket whose client sends, and never reads."""

        headers = {}  # noqa: RUF012
        received = 0

        async def receive(self):
            self.received += 1
            return {"type": "websocket.receive", "text": '{"rate": 16000}'}

        async def send_json(self, content):
            await asyncio.Event().wait()

    socket = Deaf()
    judging = Judge(model, Limits(send_seconds=0.05))

    async def listen():
        listener = Listener(socket, judging)
        await listener.greet("")
        await listener.converse()

    with pytest.raises(Refused, match="not read"):
        asyncio.run(asyncio.wait_for(listen(), 5))
    assert socket.received == 1


def test_a_listener_whom_the_server_has_closed_is_let_go(model):
    """Uvicorn closes where a message is too large, whatever is to be sent then."""
    told = [{"type": "websocket.connect"}]
    told.append({"type": "websocket.receive", "text": '{"rate": 16000}'})
    host = [(b"host", b"127.0.0.1")]
    scope = {"type": "websocket", "path": "/listen", "headers": host, "query_string": b""}
    sent = []

    async def receive():
        return told.pop(0)

    async def send(message):
        sent.append(message["type"])
        if message["type"] != "websocket.accept":
            raise RuntimeError("after sending 'websocket.close'")

    asyncio.run(app.create(Judge(model, Limits()))(scope, receive, send))
    assert sent == ["websocket.accept", "websocket.send"]


def test_answers_under_way_hold_back_a_listener_that_speaks_too_fast(model):
    """Samples are read no further than its answers may be behind."""
    samples = np.concatenate([spoken(0.8, seed) for seed in range(6)])
    held = threading.Event()
    dispatch = judge._dispatch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "_dispatch", lambda batch: held.wait(30) and dispatch(batch))
        with (
            serving(model, limits=Limits(behind=1)) as client,
            client.websocket_connect(LISTEN) as socket,
        ):
            threading.Timer(0.5, held.set).start()
            said = [each for each in listen(socket, samples) if each["type"] == "utterance"]
    assert len(said) == 6
    assert [each["start"] for each in said] == sorted(each["start"] for each in said)

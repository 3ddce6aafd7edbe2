"""What the server answers, to whom, and what it refuses."""

import asyncio
import base64
import contextlib
import io
import json
import os
import re
import threading

import numpy as np
import pytest
import soundfile
import soxr
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from PIL import Image
from speaking import babble
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import ds_jax
from ds_jax.data.labels import LABELS
from ds_jax.serving import app, judge
from ds_jax.serving.judge import Judge
from ds_jax.serving.limits import Limits
from ds_jax.serving.listen import Listener
from ds_jax.systems.model import Model

RATE = 16_000
ADDRESS = "http://127.0.0.1:8765"
LISTEN = "ws://127.0.0.1:8765/listen"
TOKEN = "a token of the tests"

pytestmark = pytest.mark.usefixtures("narrow")


@pytest.fixture(scope="module")
def model(run):
    return ds_jax.load(run)


@contextlib.contextmanager
def serving(model, limits=None, fails=True, **options):
    application = app.create(Judge(model, limits or Limits()), **options)
    with TestClient(application, ADDRESS, raise_server_exceptions=fails) as client:
        yield client


@pytest.fixture(scope="module")
def client(model):
    with serving(model) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(model):
    with serving(model, hosts=["robot.example"], token=TOKEN) as client:
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


def test_a_recording_gets_the_answer_of_predict(client, model, tmp_path):
    content = flac(spoken(), RATE)
    (tmp_path / "a.flac").write_bytes(content)
    answer = client.post("/predict", content=content)
    assert answer.status_code == 200
    OAS31Validator(schema_of(client, "/predict", "post")).validate(answer.json())
    (record,) = model.predict(tmp_path / "a.flac")
    found = answer.json()
    assert found["seconds"] == record["end"]
    assert found["prediction"] == record["prediction"]
    np.testing.assert_allclose(shares(found), [record[name] for name in LABELS], atol=1e-6)


def test_windows_are_those_of_predict(client, model, tmp_path):
    content = flac(np.concatenate([spoken(1.0), spoken(1.3, 1)]), RATE)
    (tmp_path / "a.flac").write_bytes(content)
    found = client.post("/predict?window=1.5&hop=1", content=content).json()
    records = model.predict(tmp_path / "a.flac", window=1.5, hop=1.0)
    assert len(records) > 2
    for one, record in zip(found["windows"], records, strict=True):
        assert (one["start"], one["end"]) == (record["start"], record["end"])
        np.testing.assert_allclose(shares(one), [record[name] for name in LABELS], atol=1e-6)


def test_an_ensemble_answers_with_the_mean_of_its_parts(model, monkeypatch):
    def start(inputs, rows):
        predicted = model.start(inputs, rows)()
        return lambda: predicted._replace(probabilities=predicted.probabilities[:, ::-1])

    other = Model(model.config, model.settings, 1, dict, lambda enrolled: start)
    weighted = [(0.25, model), (0.75, other)]
    monkeypatch.setattr(Model, "parts", property(lambda self: weighted))
    samples = spoken()
    with serving(model) as client:
        found = client.post("/predict", content=flac(samples)).json()
        with client.websocket_connect(LISTEN) as socket:
            _, said = listen(socket, samples, pictures=True)
    samples = soundfile.read(io.BytesIO(flac(samples)))[0]
    wanted = sum(weight * part(samples, RATE) for weight, part in weighted)
    np.testing.assert_allclose(shares(found), wanted, atol=1e-6)
    assert said["pictures"] == []


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
    np.testing.assert_allclose(shares(said), model(heard[first:last], rate), atol=1e-2)
    assert said["prediction"] == max(LABELS, key=said["probabilities"].get)


def test_pictures_come_with_gates_and_axes(client, model):
    with client.websocket_connect(LISTEN) as socket:
        _, said = listen(socket, spoken(), pictures=True)
    (picture,) = said["pictures"]
    canvas = model.config.picture.canvas
    assert [*picture["gates"]] == [*model.config.model.gates]
    for drawn in (picture, *picture["gates"].values()):
        content = base64.b64decode(drawn["image"].removeprefix("data:image/png;base64,"))
        assert Image.open(io.BytesIO(content)).size == (canvas, canvas)
    for gate in picture["gates"].values():
        assert 0 <= gate["low"] <= gate["high"] <= 1
    assert len(picture["seconds"]) == len(picture["hertz"]) == canvas
    assert picture["hertz"][0] > picture["hertz"][-1] > 0
    assert 0 < picture["seconds"][0] < picture["seconds"][-1] < said["end"] - said["start"]


def test_clients_share_dispatches_and_get_answers_of_their_own(client, model):
    """All wait for the device while it is held up, and are answered in a few dispatches."""
    count, held = 8, threading.Event()
    contents = [spoken(1.0, seed) for seed in range(count)]
    found, before = [None] * count, client.get("/healthz").json()
    dispatch = judge._dispatch

    def slow(batch):
        held.wait(30)
        return dispatch(batch)

    def ask(number):
        found[number] = client.post("/predict", content=flac(contents[number]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "_dispatch", slow)
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        threading.Event().wait(0.5)
        held.set()
        for thread in threads:
            thread.join()
    after = client.get("/healthz").json()
    OAS31Validator(schema_of(client, "/healthz", "get")).validate(after)
    assert after["answers"] - before["answers"] == count
    assert 1 <= after["dispatches"] - before["dispatches"] <= 4
    for answer, samples in zip(found, contents, strict=True):
        alone = model(soundfile.read(io.BytesIO(flac(samples)))[0], RATE)
        np.testing.assert_allclose(shares(answer.json()), alone, atol=1e-5)


def test_the_token_opens_what_is_closed(guarded):
    content = flac(spoken())
    for header in ({}, {"authorization": "Bearer wrong"}, {"authorization": f"Basic {TOKEN}"}):
        check_problem(guarded.post("/predict", content=content, headers=header), 401, "token")
    header = {"authorization": f"Bearer {TOKEN}"}
    assert guarded.post("/predict", content=content, headers=header).status_code == 200
    for address in ("/", "/healthz", "/openapi.json", "/listen.js", "/worklet.js"):
        assert guarded.get(address).status_code == 200
    assert 'type="password"' in guarded.get("/").text
    for hello, headers in (({"token": TOKEN}, {}), ({}, header)):
        with guarded.websocket_connect(LISTEN, headers=headers) as socket:
            assert listen(socket, np.zeros(8000), **hello) == []
    for token in ("wrong", "", None, 5, "é" * 20):
        with guarded.websocket_connect(LISTEN) as socket:
            socket.send_json({"rate": RATE, "token": token})
            assert "token" in socket.receive_json()["error"]
            with pytest.raises(WebSocketDisconnect) as closed:
                socket.receive_json()
            assert closed.value.code == 1008


@pytest.mark.parametrize("host", ["evil.example", "", "127.0.0.1.evil.example:8765", "[::1", "a@b"])
def test_another_host_is_refused(client, host):
    check_problem(client.get("/healthz", headers={"host": host}), 421, "--host")
    check_problem(client.post("/predict", headers={"host": host}), 421)
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(LISTEN, headers={"host": host}),
    ):
        pass


@pytest.mark.parametrize("host", ["localhost:8765", "127.0.0.1", "[::1]:8765", "192.168.1.5:80"])
def test_addresses_and_the_machine_itself_are_no_other_host(client, host):
    assert client.get("/healthz", headers={"host": host}).status_code == 200


def test_a_given_host_is_known(guarded):
    for host, status in (
        ("robot.example:8765", 200),
        ("ROBOT.example", 200),
        ("other.example", 421),
    ):
        assert guarded.get("/healthz", headers={"host": host}).status_code == status


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1:8766", ""])
def test_pages_of_others_are_refused(client, origin):
    check_problem(client.post("/predict", headers={"origin": origin}), 403)
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(LISTEN, headers={"origin": origin}),
    ):
        pass
    own = {"origin": ADDRESS}
    with client.websocket_connect(LISTEN, headers=own) as socket:
        assert listen(socket, np.zeros(4000)) == []


@pytest.mark.parametrize(
    ("content", "query", "status", "words"),
    [
        (b"", "", 422, ["the recording is empty"]),
        (b"no sound at all" * 100, "", 422, ["the recording cannot be decoded"]),
        (flac(np.zeros(8000)), "", 422, ["the recording is silent"]),
        (flac(spoken())[:2000], "", 422, ["the recording"]),
        (flac(np.tile(spoken(), 8)), "", 422, ["longer than 16 s", "--window"]),
        (flac(spoken()), "?window=17", 422, ["window=17"]),
        (flac(spoken()), "?window=x", 400, ["window=x"]),
        (flac(spoken()), "?window=nan", 400, ["window=nan"]),
        (flac(spoken()), "?window=-1", 400, ["window=-1"]),
        (flac(spoken()), "?hop=1", 422, ["hop=1", "window"]),
        (flac(spoken()), "?window=0.5&hop=0.001", 422, ["windows", "--hop"]),
    ],
    ids=[
        *("empty", "no audio", "silent", "cut", "long", "long window", "word", "nan", "negative"),
        *("hop alone", "many windows"),
    ],
)
def test_bad_recordings_get_a_sentence(client, content, query, status, words):
    answer = client.post(f"/predict{query}", content=content)
    check_problem(answer, status, *words)
    OAS31Validator(schema_of(client, "/predict", "post", str(status))).validate(answer.json())


def test_unknown_addresses_methods_and_forms_get_a_sentence(client):
    check_problem(client.get("/nothing"), 404, "/openapi.json")
    check_problem(client.get("/predict"), 405)
    check_problem(client.post("/predict", files={"file": b"x"}), 415, "curl")
    check_problem(client.get("/../../etc/passwd"), 404)


def test_uploads_are_bounded_before_they_are_read(model):
    with serving(model, limits=Limits(upload_bytes=10_000, upload_seconds=0.3)) as client:
        check_problem(client.post("/predict", content=b"x" * 10_001), 413, "0.01 MB")
        given = []

        def blocks():
            for _ in range(100):
                given.append(b"x" * 1000)
                yield given[-1]

        check_problem(client.post("/predict", content=blocks()), 413)
        assert client.post("/predict", content=b"x" * 10_000).status_code == 422


def test_a_failure_is_told_without_its_traceback(model, monkeypatch):
    def fail(*_):
        raise RuntimeError("a secret")

    with serving(model, fails=False) as client:
        monkeypatch.setattr(judge, "_dispatch", fail)
        answer = client.post("/predict", content=flac(spoken()))
        check_problem(answer, 500)
        assert "secret" not in answer.text
        monkeypatch.undo()
        assert client.post("/predict", content=flac(spoken())).status_code == 200


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


def test_listeners_are_counted_and_the_silent_are_let_go(model):
    with serving(model, limits=Limits(listeners=1, silence_seconds=0.5)) as client:
        with client.websocket_connect(LISTEN) as first:
            first.send_json({"rate": RATE})
            assert first.receive_json()["type"] == "ready"
            assert client.get("/healthz").json()["listeners"] == 1
            with client.websocket_connect(LISTEN) as second:
                assert "1 clients" in second.receive_json()["error"]
            assert "0.5 s" in first.receive_json()["error"]
        with client.websocket_connect(LISTEN) as third:
            assert listen(third, np.zeros(4000)) == []
        assert client.get("/healthz").json()["listeners"] == 0


def test_a_full_server_says_so(model):
    with serving(model, limits=Limits(waiting=2)) as client:
        answer = client.post("/predict?window=0.5", content=flac(spoken()))
        check_problem(answer, 503, "busy")
        assert answer.headers["retry-after"] == "5"
    with serving(model, limits=Limits(uploads=0)) as client:
        check_problem(client.post("/predict", content=flac(spoken())), 503, "0 clients")


def test_nothing_is_left_in_files(client, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    opened = len(os.listdir("/proc/self/fd"))
    for content in (flac(spoken()), b"no sound"):
        client.post("/predict", content=content)
    assert [*tmp_path.iterdir()] == []
    assert len(os.listdir("/proc/self/fd")) <= opened


def test_the_page_loads_its_own_scripts_alone(client):
    answer = client.get("/")
    page, policy = answer.text, answer.headers["content-security-policy"]
    assert re.findall(r'(?:src|href|action)="([^"]*)"', page) == ["data:,", "/listen.js"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not re.search(r'\s(on\w+|style)="', page)
    for name in LABELS:
        assert f'data-class="{name}"' in page
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert client.get("/listen.js").headers["content-type"].startswith("text/javascript")


def test_the_interface_is_described_as_openapi_has_it(client):
    described = client.get("/openapi.json").json()
    validate(described)
    served = {"/predict": {"post"}, "/healthz": {"get"}}
    assert {path: {*methods} for path, methods in described["paths"].items()} == served
    assert json.dumps(Limits().upload_bytes) in json.dumps(described)


def test_a_listener_that_does_not_read_is_let_go(model):
    class Deaf:
        """A WebSocket whose client sends, and never reads."""

        headers = {}  # noqa: RUF012
        received = 0

        async def accept(self):
            pass

        async def receive(self):
            self.received += 1
            return {"type": "websocket.receive", "text": '{"rate": 16000}'}

        async def send_json(self, content):
            await asyncio.Event().wait()

    socket = Deaf()
    judging = Judge(model, Limits(send_seconds=0.05))
    asyncio.run(asyncio.wait_for(Listener(socket, judging, "").serve(), 5))
    assert socket.received == 1


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

"""What the server answers, to whom, and what it refuses."""

import asyncio
import io
import json
import os
import re
import socket
import tempfile
import threading

import numpy as np
import pytest
import soundfile
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from served import (
    ADDRESS,
    LISTEN,
    RATE,
    TOKEN,
    check_problem,
    flac,
    listen,
    schema_of,
    serving,
    shares,
    spoken,
)
from starlette.websockets import WebSocketDisconnect

from ds_jax.data.labels import LABELS
from ds_jax.runtime import progress
from ds_jax.serving import app, judge
from ds_jax.serving.judge import Judge
from ds_jax.serving.limits import Limits
from ds_jax.systems.ensemble import Ensemble
from ds_jax.systems.model import Model

pytestmark = pytest.mark.usefixtures("narrow")


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


def test_an_ensemble_answers_with_the_mean_of_its_parts(model):
    def start(inputs, rows):
        predicted = model.start(inputs, rows)()
        return lambda: predicted._replace(probabilities=predicted.probabilities[:, ::-1])

    other = Model(model.config, model.settings, 1, dict, lambda enrolled: start)
    weighted = [(0.25, model), (0.75, other)]
    together = Ensemble(model.config, weighted, dict)
    samples = spoken()
    with serving(together) as client:
        found = client.post("/predict", content=flac(samples)).json()
        with client.websocket_connect(LISTEN) as socket:
            _, said = listen(socket, samples, pictures=True)
    samples = soundfile.read(io.BytesIO(flac(samples)))[0]
    wanted = sum(weight * part(samples, RATE) for weight, part in weighted)
    np.testing.assert_allclose(shares(found), wanted, atol=1e-6)
    assert said["pictures"] == []


def test_compiling_tells_how_far_it_is(model, monkeypatch):
    told = []
    monkeypatch.setattr(progress, "bar", lambda *given: told.append(given) or given[-1])
    count = Judge(model, Limits(piece=0.5)).warm_up()
    ((_, total, _, programs),) = told
    assert total == count == len(programs) > 0


def test_a_recording_asks_for_few_windows_at_a_time(model, monkeypatch):
    """However many it has, it leaves room for others, and gets the answers of `predict`."""
    sizes, dispatch = [], judge._dispatch
    monkeypatch.setattr(
        judge, "_dispatch", lambda batch: sizes.append(len(batch)) or dispatch(batch)
    )
    content = flac(np.concatenate([spoken(1.5, seed) for seed in range(2)]))
    with serving(model, limits=Limits(waiting=judge.TOGETHER)) as client:
        found = client.post("/predict?window=0.5&hop=0.2", content=content).json()
    whole, rest = divmod(len(found["windows"]), judge.TOGETHER)
    assert whole >= 3
    assert sizes[:whole] == [judge.TOGETHER] * whole
    assert sum(sizes[whole:]) == rest


def test_utterances_are_judged_before_windows_and_few_alone(model):
    judging = Judge(model, Limits())
    loop = asyncio.new_event_loop()
    inputs = np.zeros((1, 2))

    def waiting(count, is_said):
        return [judge._Waiting(max, inputs, is_said, loop.create_future()) for _ in range(count)]

    windows, said = waiting(3, False), waiting(2, True)
    judging._waiting = windows + said
    windows[0].answer.cancel()  # its client is gone
    taken = [judging._take() for _ in range(5)]
    assert [[id(each) for each in batch] for batch in taken] == [
        *([id(each)] for each in (*said, *windows[1:])),
        [],
    ]
    judging._waiting = waiting(judge.LEAST_TOGETHER - 1, False) + (said := waiting(1, True))
    batch = judging._take()
    assert batch[0] is said[0]
    assert len(batch) == judge.LEAST_TOGETHER
    loop.close()


def test_clients_share_dispatches_and_get_answers_of_their_own(client, model):
    """All wait for the device while it is held up, and are answered in a few dispatches."""
    count, held = 8, threading.Event()
    contents = [spoken(1.0, seed) for seed in range(count)]
    found, before = [None] * count, client.get("/healthz").json()
    dispatch, waiting, arrived = judge._dispatch, judge._Waiting, threading.Semaphore(0)

    def slow(batch):
        held.wait(30)
        return dispatch(batch)

    def noted(*arguments):
        arrived.release()
        return waiting(*arguments)

    def ask(number):
        found[number] = client.post("/predict", content=flac(contents[number]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(judge, "_dispatch", slow)
        patch.setattr(judge, "_Waiting", noted)
        threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
        for thread in threads:
            thread.start()
        assert all(arrived.acquire(timeout=30) for _ in threads)
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
    assert len({tuple(np.round(shares(answer.json()), 4)) for answer in found}) == count


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
    check_problem(client.get("/healthz", headers={"host": host}), 421, "--name")
    check_problem(client.post("/predict", headers={"host": host}), 421)
    with (
        pytest.raises(WebSocketDisconnect),
        client.websocket_connect(LISTEN, headers={"host": host}),
    ):
        pass


@pytest.mark.parametrize(
    "host", ["localhost:8765", "127.0.0.1", "[::1]:8765", "192.168.1.5:80", None]
)
def test_addresses_and_the_machine_itself_are_no_other_host(client, host):
    host = host or f"{socket.gethostname().partition('.')[0]}.local:8765"
    assert client.get("/healthz", headers={"host": host}).status_code == 200


def test_a_given_host_is_known(guarded):
    for host, status in (
        ("robot.example:8765", 200),
        ("ROBOT.example", 200),
        ("other.example", 421),
    ):
        assert guarded.get("/healthz", headers={"host": host}).status_code == status
    behind_a_proxy = {"host": "robot.example", "origin": "https://robot.example"}
    assert guarded.get("/healthz", headers=behind_a_proxy).status_code == 200


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
        (b"ffconcat version 1.0\nfile a.wav\n", "", 422, ["cannot be decoded: send it as .wav"]),
        (
            flac(np.tile(spoken(), 8)),
            "",
            422,
            ["longer than 16 s", "window=SECONDS in the address"],
        ),
        (flac(spoken()), "?window=17", 422, ["window=17"]),
        (flac(spoken()), "?window=x", 400, ["window=x"]),
        (flac(spoken()), "?window=nan", 400, ["window=nan"]),
        (flac(spoken()), "?window=1&hops=1", 400, ["'hops'", "window, hop"]),
        (flac(spoken()), "?window=-1", 400, ["window=-1"]),
        (flac(spoken()), "?hop=1", 422, ["hop=1", "window"]),
        (flac(spoken()), "?window=1&hop=1e308", 400, ["hop=1e308"]),
        (flac(spoken()), "?window=0.5&hop=0.001", 422, ["windows", "hop=SECONDS in the address"]),
    ],
    ids=[
        "empty",
        "no audio",
        "silent",
        "cut",
        "playlist",
        "long",
        "long window",
        "word",
        "nan",
        "unknown",
        "negative",
        "hop alone",
        "long hop",
        "many windows",
    ],
)
def test_bad_recordings_get_a_sentence(client, content, query, status, words):
    answer = client.post(f"/predict{query}", content=content)
    check_problem(answer, status, *words)
    assert "--" not in answer.json()["error"]
    OAS31Validator(schema_of(client, "/predict", "post", str(status))).validate(answer.json())


def test_unknown_addresses_methods_and_forms_get_a_sentence(client):
    check_problem(client.get("/nothing"), 404, "/openapi.json")
    check_problem(client.get("/predict"), 405)
    check_problem(client.post("/predict", files={"file": b"x"}), 415, "curl")
    check_problem(client.get("/../../etc/passwd"), 404)


def test_uploads_are_bounded_before_they_are_read(model):
    with serving(model, limits=Limits(upload_bytes=10_000, upload_seconds=0.3)) as client:
        check_problem(client.post("/predict", content=b"x" * 10_001), 413, "0.01 MB")
        assert client.post("/predict", content=b"x" * 10_000).status_code == 422


def test_no_more_of_a_body_is_read_than_is_allowed(model):
    """It has no length that could be read before."""
    limits = Limits(upload_bytes=10_000, upload_seconds=0.3)
    assert asyncio.run(post(model, limits, given := [b"x" * 1000] * 100)) == 413
    assert len(given) == 100 - 11
    assert asyncio.run(post(model, limits, [b"x"])) == 408


async def post(model, limits, blocks):
    """Sends blocks as a recording, and takes those that are read from them; nothing comes after.

    Returns the status of the answer.
    """
    application, answers = app.create(Judge(model, limits)), []
    headers = [(b"host", b"127.0.0.1")]
    scope = {"type": "http", "method": "POST", "path": "/predict", "query_string": b""}

    async def receive():
        if not blocks:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": blocks.pop(), "more_body": True}

    async def send(message):
        answers.append(message)

    await application(scope | {"headers": headers}, receive, send)
    return answers[0]["status"]


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


def test_a_full_server_says_so(model):
    with serving(model, limits=Limits(waiting=2)) as client:
        answer = client.post("/predict?window=0.5", content=flac(spoken()))
        check_problem(answer, 503, "busy")
        assert answer.headers["retry-after"] == "5"
    with pytest.MonkeyPatch.context() as patch:
        held, dispatch = threading.Event(), judge._dispatch
        patch.setattr(judge, "_dispatch", lambda batch: held.wait(30) and dispatch(batch))
        with serving(model, limits=Limits(answer_seconds=0.2)) as client:
            check_problem(client.post("/predict", content=flac(spoken())), 503, "busy")
            held.set()
    with serving(model, limits=Limits(uploads=0)) as client:
        check_problem(client.post("/predict", content=flac(spoken())), 503, "0 clients")


def test_nothing_is_left_in_files(client, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    opened = len(os.listdir("/proc/self/fd"))
    for content in (flac(spoken()), b"no sound", b"\0\0\0\x18ftypM4A no sound"):
        client.post("/predict?window=0.5", content=content)
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

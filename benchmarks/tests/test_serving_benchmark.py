"""The benchmark of the server counts what it says, against a server that is made up."""

import asyncio
import json

import numpy as np
import psutil
import pytest
import websockets

from benchmarks import serving


@pytest.mark.parametrize("lost", [False, True])
def test_clients_count_answers_and_their_latency(lost):
    """The server tells of speech at once, and answers 0.3 s after a recording, or never."""
    speech = [np.full(serving.RATE, 1000, "<i2")]

    async def serve(socket):
        assert json.loads(await socket.recv()) == {"rate": serving.RATE}
        await socket.send(json.dumps({"type": "ready"}))
        heard = 0
        async for message in socket:
            if isinstance(message, str):
                await socket.send(json.dumps({"type": "end"}))
                return
            heard += len(message) // 2
            if heard == serving.RATE:
                await socket.send(json.dumps({"type": "speech", "start": 0}))
                await asyncio.sleep(0.3)
                answer = {"type": "utterance", "start": 0.0, "end": 0.95 + serving.AROUND}
                if not lost:
                    await socket.send(json.dumps(answer))

    async def measure():
        async with websockets.serve(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await serving.speak_together(
                f"127.0.0.1:{port}", psutil.Process(), speech, 2, 1 / 60
            )

    clients, held = asyncio.run(measure())
    assert [client.lost for client in clients] == [lost] * 2
    assert [(client.said, client.unheard) for client in clients] == [(1, lost)] * 2
    for client in clients:
        assert not client.is_dropped
        assert all(0.3 <= latency < 5 for latency in client.latencies)
    assert held[-1]["MiB"] > 1


def test_memory_grows_by_the_medians():
    held = [{"MiB": value} for value in (100, 101, 900, 500, 500, 500, 120, 121, 122)]
    assert serving.growth(held) == 20


def test_a_folder_without_speech_is_named(tmp_path):
    (tmp_path / "a.txt").write_text("no sound")
    with pytest.raises(ValueError, match=r"no recordings of 1 to 12 s"):
        serving.find_speech([str(tmp_path)], 3)

"""Speaks to a server by many clients at once, and sees whether each utterance is answered in time.

    python -m benchmarks.serving --checkpoint=runs/ds_am_emodb --recordings=corpora/emodb/wav
    python -m benchmarks.serving --checkpoint=... --recordings=... --clients=8 --minutes=1 --quiet=6

Starts `--mode=serve` as a process of its own. Each client says recordings one after the other, with
a second of quiet between two, or as many as `--quiet` says, no faster than a person would, as long
as it is asked to. It counts

- answers that are lost: that speech begins is told, and then no utterance of the same start is
  judged; clients that are dropped; and recordings in which nothing is heard, which depends on the
  detector of voices;
- the latency: from the moment at which a client has sent the end of the speech to that at which it
  has the answer. The pause that ends an utterance is part of it;
- the memory of the server: the median of the last third of the time less that of the first;
- the answers of a dispatch, and what the processors do besides.

The status is 1 if an answer was lost, a client dropped, or memory has grown by more than a bound.
"""

import asyncio
import contextlib
import json
import re
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil
import websockets

from benchmarks import measuring
from ds_jax.data import recordings
from ds_jax.features import audio
from ds_jax.serving.speech import AROUND, PAUSE

RATE = 16_000  # Hz
BLOCK = 0.1  # seconds of a message
QUIET = 1.0  # seconds between two recordings, unless --quiet gives others
LEAST, MOST = 1.0, 12.0  # seconds of a recording that is said
BOUND = 64  # MiB by which memory may grow
SHOWN = 30.0  # seconds between two lines
SAMPLED = 1.0  # seconds between two measurements of the memory


class Client(NamedTuple):
    """What one client saw.

    Attributes:
        lost: Starts of speech that were told, of which no utterance was answered.
        said, unheard: Recordings that were said, and those in which nothing was heard.
        is_dropped: Whether the server closed the connection before it had answered all.
        latencies: Seconds of each answer.
        behind: Seconds by which it sent later than it wanted to, at most.
    """

    lost: int
    said: int
    unheard: int
    is_dropped: bool
    latencies: list[float]
    behind: float


def find_speech(paths: Sequence[str], count: int) -> list[np.ndarray]:
    """Reads recordings that are neither short nor long, int16 [n] at `RATE`."""
    found, speech = recordings.find(paths)[0], []
    for recording in found:
        samples, _ = audio.read(recording.path, RATE)
        if LEAST * RATE <= len(samples) <= MOST * RATE:
            speech.append(np.rint(samples * 32767).astype("<i2"))
        if len(speech) == count:
            return speech
    if not speech:
        raise ValueError(f"{', '.join(paths)}: there are no recordings of {LEAST:g} to {MOST:g} s")
    return speech


@contextlib.contextmanager
def serving(checkpoint: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Yields the address of a server and its process."""
    command = [sys.executable, "-u", str(measuring.ROOT / "launch.py"), "--mode=serve", "--port=0"]
    command.append(f"--checkpoint={checkpoint}")
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                if address := re.search(r"http://(\S+?)/", line):
                    yield address[1], psutil.Process(process.pid)
                    break
            else:
                raise ValueError("the server has ended")
        finally:
            process.terminate()
            process.wait()


async def speak(
    address: str, speech: Sequence[np.ndarray], first: int, until: float, quiet: float = QUIET
) -> Client:
    """Says recordings from the given one on until a time by time.monotonic()."""
    begun, latencies, spans, heard = set(), [], [], []
    sent, behind, is_dropped = [], 0.0, True  # when each message was sent
    size, pause = round(BLOCK * RATE), np.zeros(round(quiet * RATE), "<i2")
    async with websockets.connect(f"ws://{address}/listen", ping_interval=None) as socket:
        await socket.send(json.dumps({"rate": RATE}))
        assert json.loads(await socket.recv())["type"] == "ready"

        async def listen() -> None:
            nonlocal is_dropped
            async for text in socket:
                came, message = time.monotonic(), json.loads(text)
                if message.get("type") == "speech":
                    begun.add(message["start"])
                elif message.get("type") == "utterance":
                    heard.append((message["start"], message["end"]))
                    block = min(int((message["end"] - AROUND) / BLOCK), len(sent) - 1)
                    latencies.append(came - sent[block])
                elif message.get("type") == "end":
                    is_dropped = False
                elif "error" in message:
                    print(message["error"], flush=True)

        listening, number = asyncio.create_task(listen()), first
        began, rest = time.monotonic(), np.zeros(0, "<i2")
        while time.monotonic() < until and not listening.done():
            start = len(sent) * BLOCK + len(rest) / RATE
            said = speech[number % len(speech)]
            spans.append((start, start + len(said) / RATE))
            number += 1
            rest = np.concatenate([rest, said, pause])
            while len(rest) >= size and not listening.done():
                wanted = began + (len(sent) + 1) * BLOCK  # when its last sample is spoken
                await asyncio.sleep(max(0.0, wanted - time.monotonic()))
                sent.append(time.monotonic())
                behind = max(behind, sent[-1] - wanted)
                with contextlib.suppress(websockets.ConnectionClosed):
                    await socket.send(rest[:size].tobytes())
                rest = rest[size:]
        with contextlib.suppress(websockets.ConnectionClosed):
            await socket.send(json.dumps({"type": "end"}))
        with contextlib.suppress(websockets.ConnectionClosed):
            await listening
    unheard = sum(not any(a < end and start < b for a, b in heard) for start, end in spans)
    lost = begun - {start for start, _ in heard}
    return Client(len(lost), len(spans), unheard, is_dropped, latencies, behind)


async def speak_together(
    address: str,
    process: psutil.Process,
    speech: Sequence[np.ndarray],
    count: int,
    minutes: float,
    quiet: float = QUIET,
) -> tuple[list[Client], list[dict]]:
    """Lets clients speak at once; returns what each saw, and what the server held meanwhile."""
    began, held, shown = time.monotonic(), [], 0.0
    until = began + 60 * minutes
    clients = []
    for number in range(count):  # they do not all begin to speak at the same moment
        clients.append(asyncio.create_task(speak(address, speech, number, until, quiet)))
        await asyncio.sleep(min(0.1, minutes / count))
    process.cpu_percent()
    while not all(client.done() for client in clients):
        await asyncio.sleep(SAMPLED)
        seconds = time.monotonic() - began
        held.append({"seconds": seconds, "MiB": process.memory_info().rss / 2**20})
        held[-1] |= {"processors": process.cpu_percent() / 100}
        if seconds - shown >= SHOWN:
            shown = seconds
            load = measuring.machine()["load"]
            print(f"{seconds:5.0f} s: {held[-1]['MiB']:.0f} MiB, load {load:.1f}", flush=True)
    return await asyncio.gather(*clients), held


def growth(held: Sequence[dict]) -> float:
    """Returns the median MiB of the last third less that of the first."""
    values = [each["MiB"] for each in held]
    third = max(1, len(values) // 3)
    return statistics.median(values[-third:]) - statistics.median(values[:third])


def main(arguments: list[str] | None = None) -> dict:
    """Measures, prints and writes."""
    parser = measuring.parser("serving", __doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="a run or a fold")
    parser.add_argument("--recordings", nargs="+", required=True, help="files and folders")
    parser.add_argument("--clients", type=measuring.positive, default=32, help="how many")
    parser.add_argument("--minutes", type=float, default=5.0, help="how long they speak")
    parser.add_argument("--quiet", type=float, default=QUIET, help="seconds after a recording")
    flags = parser.parse_args(arguments)
    speech = find_speech(flags.recordings, flags.clients)
    with serving(flags.checkpoint) as (address, process):
        clients, held = asyncio.run(
            speak_together(address, process, speech, flags.clients, flags.minutes, flags.quiet)
        )
        with urllib.request.urlopen(f"http://{address}/healthz") as answer:
            health = json.load(answer)
    latencies = np.asarray([each for client in clients for each in client.latencies])
    if not len(latencies):
        raise ValueError("nothing was heard: give recordings of speech")
    found = {
        "machine": measuring.machine(),
        "clients": len(clients),
        "minutes": held[-1]["seconds"] / 60,
        "quiet, s": flags.quiet,
        "recordings": sum(client.said for client in clients),
        "unheard": sum(client.unheard for client in clients),
        "answers": len(latencies),
        "lost": sum(client.lost for client in clients),
        "dropped": sum(client.is_dropped for client in clients),
        "latency, s": {
            name: float(np.percentile(latencies, share))
            for name, share in (("p50", 50), ("p90", 90), ("p99", 99))
        },
        "pause within it, s": PAUSE,
        "sent late by, s": max(client.behind for client in clients),
        "answers of a dispatch": health["answers"] / health["dispatches"],
        "processors": statistics.fmean(each["processors"] for each in held),
        "MiB": {"first": held[0]["MiB"], "last": held[-1]["MiB"], "grown": growth(held)},
        "bound, MiB": BOUND,
    }
    rows = [(name, value) for name, value in found["latency, s"].items()]
    measuring.table("from the end of speech to the answer", ("", "seconds"), rows)
    print(
        f"{found['answers']} answers to {found['clients']} clients, {found['lost']} lost, "
        f"{found['dropped']} dropped, {found['unheard']} of {found['recordings']} recordings "
        "unheard; "
        f"{found['answers of a dispatch']:.1f} answers of a dispatch, "
        f"{found['processors']:.2f} processors; {found['MiB']['last']:.0f} MiB at the end, grown "
        f"by {found['MiB']['grown']:.1f}; load {found['machine']['load']:.1f}"
    )
    measuring.save(flags.output, found)
    return found


if __name__ == "__main__":
    done = main()
    if done["lost"] or done["dropped"] or done["MiB"]["grown"] > BOUND:
        sys.exit(f"an answer or a client was lost, or memory has grown by more than {BOUND} MiB")

"""--mode=serve takes an address, says that it listens, and ends in order."""

import asyncio
import ipaddress
import json
import re
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import soundfile
import uvicorn
from speaking import babble

from ds_jax.commands import serve
from ds_jax.serving.connections import Impatient
from ds_jax.serving.limits import Limits

ROOT = Path(__file__).parents[2]


def test_a_port_that_is_in_use_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=rf"--port={port}: Address already in use"):
            serve.run(tmp_path, "127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_of_no_machine_is_named(host, tmp_path, monkeypatch):
    if host == "no such host":  # which nobody is asked for
        unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: raise_(unknown))
    with pytest.raises(OSError, match=rf"--host={host} .*give another"):
        serve.run(tmp_path, host, 0)


def raise_(error):
    raise error


@pytest.mark.parametrize("name", ["https://robot.example", "robot.example:443", ""])
def test_a_name_is_no_address(name, tmp_path):
    with pytest.raises(ValueError, match=f"--name={name} must be a name alone"):
        serve.run(tmp_path, "127.0.0.1", 0, names=[name])


@pytest.mark.parametrize(
    ("address", "shown"), [("127.0.0.1", "127.0.0.1"), ("192.0.2.7", "192.0.2.7"), ("::1", "[::1]")]
)
def test_the_address_that_is_shown_opens(address, shown):
    assert serve._reachable(address) == shown
    for any_address in ("0.0.0.0", "::"):
        found = ipaddress.ip_address(serve._reachable(any_address).strip("[]"))
        assert not found.is_unspecified
        assert found.version == ipaddress.ip_address(any_address).version


def test_connections_that_ask_nothing_are_closed(monkeypatch):
    """A part of a request, the first or a later one, keeps no connection open."""
    monkeypatch.setattr(Limits, "greeting_seconds", 0.3)

    async def app(scope, receive, send):
        await asyncio.sleep(0.6)  # an answer may take longer
        headers = [(b"content-length", b"2")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": b"ok"})

    async def ask(port, first):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(first)
        content = await reader.read()  # until the server closes
        writer.close()
        return content

    async def ask_all():
        server = uvicorn.Server(
            uvicorn.Config(app, http=Impatient, lifespan="off", log_level="error")
        )
        with socket.create_server(("127.0.0.1", 0)) as bound:
            running = asyncio.create_task(server.serve(sockets=[bound]))
            request, port = b"GET / HTTP/1.1\r\nHost: a\r\n", bound.getsockname()[1]
            asking = [ask(port, first) for first in (b"", request, request + b"\r\n" + request)]
            answers = await asyncio.wait_for(asyncio.gather(*asking), 4)
            server.should_exit = True
            await running
        return answers

    silent, half, one_and_a_half = asyncio.run(ask_all())
    assert silent == half == b""
    assert one_and_a_half.count(b"ok") == 1


def test_a_token_that_is_easily_guessed_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv(serve.TOKEN, "secret")
    with pytest.raises(ValueError, match="DS_JAX_TOKEN must have at least 16"):
        serve.run(tmp_path, "127.0.0.1", 0)


def test_a_missing_package_is_named_with_its_requirements(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ValueError, match=r"uvicorn: pip install -r requirements-serve\.txt"):
        serve.run(tmp_path, "127.0.0.1", 0)


@pytest.mark.slow  # a process of its own imports everything
def test_it_listens_with_a_token_until_sigterm(finished_runs, tmp_path):
    soundfile.write(tmp_path / "a.wav", babble(1.0), 16_000)
    checkpoint = finished_runs("svc")
    arguments = [sys.executable, "launch.py", "--mode=serve", "--host=0.0.0.0", "--port=0"]
    process = subprocess.Popen(
        [*arguments, f"--checkpoint={checkpoint}"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        lines = iter(process.stdout.readline, "")
        found = next(found for line in lines if (found := re.search(r":(\d+)/#token=(\S+)", line)))
        address, token = f"http://127.0.0.1:{found[1]}/predict", found[2]
        content = (tmp_path / "a.wav").read_bytes()
        request = urllib.request.Request(address, content)
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        with refused.value as answer:
            assert answer.code == 401
        request.add_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request) as answer:
            assert json.load(answer)["seconds"] == 1.0
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert errors.splitlines()[-1] == "stopped by SIGTERM: the same command starts anew"

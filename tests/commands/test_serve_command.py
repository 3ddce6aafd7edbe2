"""--mode=serve takes an address, says that it listens, and ends in order."""

import json
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
import soundfile
from speaking import babble

from ds_jax.commands import serve

ROOT = Path(__file__).parents[2]


def test_a_port_that_is_in_use_is_named(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=rf"--port={port}: Address already in use"):
            serve.run(tmp_path, "127.0.0.1", port)


@pytest.mark.parametrize("host", ["192.0.2.1", "no such host"])
def test_an_address_of_no_machine_is_named(host, tmp_path):
    with pytest.raises(OSError, match=rf"--host={host} .*give another"):
        serve.run(tmp_path, host, 0)


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
    command = [sys.executable, "launch.py", "--mode=serve", "--host=0.0.0.0", "--port=0"]
    process = subprocess.Popen(
        [*command, f"--checkpoint={checkpoint}"],
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
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert errors.splitlines()[-1] == "stopped by SIGTERM: the same command starts anew"
    assert time.monotonic() - began < 15

"""--mode=serve: listens to a microphone in a browser, to robots and to programs."""

import asyncio
import contextlib
import ipaddress
import os
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ds_jax.runtime import progress
from ds_jax.systems.finding import find
from ds_jax.systems.model import SYNTHETIC

TOKEN = "DS_JAX_TOKEN"  # in the environment, since everybody on a machine sees its command lines
LONGEST_END = 10  # seconds in which recordings that are under way are answered after SIGTERM


def run(
    checkpoint: Path,
    host: str,
    port: int,
    reading: Mapping[str, Any] | None = None,
    enrol: Sequence[str | Path] = (),
    names: Sequence[str] = (),
) -> None:
    """Serves the answers of a run's models until SIGTERM or Ctrl-C.

    On the machine itself it asks for no token. Elsewhere, and where the machine has names, it asks
    for that of `TOKEN`, or for one that it makes and prints. Nothing is stored.

    Args:
        checkpoint: As in `predict.run`.
        host: The address to listen at, such as 127.0.0.1 or 0.0.0.0, or a name of one.
        port: 0 takes a free one.
        reading, enrol: As in `predict.run`.
        names: Names by which clients know the machine, such as that of a proxy before the server.

    Raises:
        FileNotFoundError: There is no checkpoint.
        OSError: The address is not this machine's, or is in use.
        ValueError: A package is missing, the token is too short, or a name impossible; or as
            `Model.enrol`.
    """
    try:
        import uvicorn

        from ds_jax.serving import app, guard
        from ds_jax.serving.connections import Impatient
        from ds_jax.serving.judge import Judge
        from ds_jax.serving.limits import Limits
    except ModuleNotFoundError as error:
        raise ValueError(
            f"--mode=serve needs the package {error.name}: pip install -r requirements-serve.txt"
        ) from error
    token = os.environ.get(TOKEN, "")
    if 0 < len(token) < guard.LEAST_TOKEN:
        raise ValueError(f"${TOKEN} must have at least {guard.LEAST_TOKEN} characters")
    for name in names:
        if not re.fullmatch(r"[\w.-]+", name):
            raise ValueError(f"--name={name} must be a name alone, such as robot.example")
    with _bind(host, port) as bound:
        address, port = bound.getsockname()[:2]
        is_local = ipaddress.ip_address(address).is_loopback
        made = not token and (not is_local or bool(names))
        token = secrets.token_urlsafe(32) if made else token
        model = find(checkpoint, **(reading or {}))
        if model.config.synthetic:
            print(SYNTHETIC)
        model.enrol(enrol)
        progress.say(
            f"{model.title}: loading {progress.many(model.count, 'model')}, and compiling "
            "for utterances of all lengths: some minutes where nothing was compiled before"
        )
        model.start  # noqa: B018 (loads the weights, so that an error comes here)
        shown = _reachable(address)
        lines = [f"listening at http://{shown}:{port}/" + (f"#token={token}" if made else "")]
        if token and not made:
            lines.append(f"clients need the token that ${TOKEN} holds")
        if not is_local:
            lines.append(
                "without encryption: browsers give microphones to pages of this machine alone, "
                "such as those through ssh -L"
            )
        limits = Limits()
        judge = Judge(model, limits)
        judge.warm_up()
        config = uvicorn.Config(
            app.create(judge, [host, *names], token),
            http=Impatient,
            log_level="error",
            access_log=False,
            ws="websockets-sansio",
            ws_max_size=limits.message_bytes,
            # Samples that wait to be read would hold up the answer. Who sends nothing is let go.
            ws_ping_interval=None,
            limit_concurrency=limits.connections,
            timeout_graceful_shutdown=LONGEST_END,
            server_header=False,
            date_header=False,
            proxy_headers=False,
        )
        server = uvicorn.Server(config)
        asyncio.run(_serve(server, bound, lines))


async def _serve(server: Any, bound: socket.socket, lines: list[str]) -> None:
    """Lets a server run, and prints lines as soon as it listens."""
    running = asyncio.create_task(server.serve(sockets=[bound]))
    while not (server.started or running.done()):
        await asyncio.sleep(0.05)
    for line in lines if server.started else ():
        print(line, flush=True)
    await running


def _reachable(address: str) -> str:
    """Returns an address as browsers write it; that of this machine instead of any address."""
    parsed = ipaddress.ip_address(address)
    if parsed.is_unspecified:
        is_4 = parsed.version == 4
        # The system chooses the address from which it would send; nothing is sent.
        with socket.socket(socket.AF_INET if is_4 else socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect(("192.0.2.1" if is_4 else "2001:db8::1", 9))  # examples, of nobody
                address = probe.getsockname()[0]
            except OSError:  # there is no network
                address = "127.0.0.1" if is_4 else "::1"
    return f"[{address}]" if ":" in address else address


def _bind(host: str, port: int) -> socket.socket:
    """Takes an address, at which nobody is heard until the server is ready."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.ExitStack() as closed_by_an_error:
            bound = closed_by_an_error.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.bind(address)
            closed_by_an_error.pop_all()
    except OSError as error:
        raise OSError(
            f"--host={host} --port={port}: {error.strerror or error}: give another --port, or an "
            "address of this machine"
        ) from error
    return bound

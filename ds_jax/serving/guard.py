"""What stands before every request: who may ask, from which page, and what browsers may do with it.

A page of another site that is open in the browser of somebody who runs a server must not reach it:
by its own address it is another Origin, and by a name that it lets lead to this machine (DNS
rebinding) it comes with that name as Host.
"""

import hmac
import ipaddress
import socket
from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ds_jax.serving.limits import Refused

OPEN = ("/", "/healthz", "/openapi.json", "/listen.js", "/worklet.js")  # need no token
LEAST_TOKEN = 16  # characters
HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


class Guard:
    """An application that checks each request before another one sees it.

    Args:
        app: The other application.
        hosts: Names of this machine besides addresses, localhost, and its own name, in the local
            network with ".local".
        token: What a client must know; "" for everybody.
        policy: The Content-Security-Policy of all answers.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], token: str, policy: str):
        self._app, self._token = app, token
        own = socket.gethostname().lower()
        local = f"{own.partition('.')[0]}.local"  # as multicast DNS has it
        self._hosts = {"localhost", own, local, *map(str.lower, hosts)}
        self._headers = HEADERS | {"content-security-policy": policy}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self._headers)
            await send(message)

        headers = Headers(scope=scope)
        try:
            self._check_host(headers.get("host", ""))
            _check_origin(headers)
            if scope["type"] == "http" and scope["path"] not in OPEN:
                check_token(self._token, bearer(headers))
        except Refused as refused:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": refused.code})
            else:
                answer = JSONResponse({"error": refused.sentence}, refused.status)
                await answer(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _check_host(self, host: str) -> None:
        """Checks that a client knows the server by an address, or by a name of its own."""
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            name = ""
        if name not in self._hosts and not _is_address(name):
            raise Refused(
                421,
                f"this server is not {name[:200]!r}: ask it by its address, or start it with "
                "--name",
            )


def bearer(headers: Headers) -> str:
    """Returns the token of the header Authorization, "" without."""
    kind, _, token = headers.get("authorization", "").partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def check_token(wanted: str, given: object) -> None:
    """Checks a token in a time that does not depend on how much of it is right.

    Raises:
        Refused: It is wrong or missing.
    """
    given = given if isinstance(given, str) else ""
    if wanted and not hmac.compare_digest(wanted.encode(), given.encode("utf-8", "replace")):
        raise Refused(
            401, "the token is wrong or missing: send it as 'Authorization: Bearer TOKEN'"
        )


def _check_origin(headers: Headers) -> None:
    """Checks that a request comes from a page of this server, or from no page at all."""
    origin = headers.get("origin")
    if origin is None or origin in (f"http://{headers['host']}", f"https://{headers['host']}"):
        return
    raise Refused(403, f"a page of {origin[:200]} may not ask this server: open its own page")


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True

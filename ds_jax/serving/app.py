"""The application: its addresses, and what each answers."""

import asyncio
import base64
import contextlib
import hashlib
import os
import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from ds_jax.report import pages
from ds_jax.runtime import errors
from ds_jax.serving import guard, openapi
from ds_jax.serving.guard import Guard
from ds_jax.serving.judge import Judge
from ds_jax.serving.limits import Refused
from ds_jax.serving.listen import Listener

TITLE = "the recording"  # what errors call it: a client knows no path of the server
WINDOWING = ("window", "hop")  # what the address of a recording may say
_PAGE = Path(__file__).with_name("page")
_TYPE = "text/javascript; charset=utf-8"
_FAILED = "the server failed: its own output says why"


def create(judge: Judge, hosts: Sequence[str] = (), token: str = "") -> Guard:
    """Creates an application of ASGI; the judge works as long as it does.

    The names by which clients know this machine and their token are those of `Guard`.
    """
    service = _Service(judge, token)
    routes = [
        Route("/", service.page),
        Route("/listen.js", _script("listen.js")),
        Route("/worklet.js", _script("worklet.js")),
        Route("/healthz", service.health),
        Route("/openapi.json", service.describe),
        Route("/predict", service.predict, methods=["POST"]),
        WebSocketRoute("/listen", service.listen),
    ]
    handlers = {Refused: _refuse, HTTPException: _no_such, Exception: _fail}
    app = Starlette(routes=routes, exception_handlers=handlers, lifespan=service.lifespan)
    return Guard(app, hosts, token, service.policy)


class _Service:
    """The answers to all requests."""

    def __init__(self, judge: Judge, token: str):
        self._judge, self._token, self._limits = judge, token, judge.limits
        self._strangers = self._listeners = self._uploads = 0
        model, config = judge.model, judge.model.config
        self._html = pages.render(
            "listen.html.jinja",
            title="Emotions in what you say",
            system=model.title,
            models=model.count,
            classes=model.classes,
            never_answered=model.never_answered,
            synthetic=config.synthetic,
            needs_token=bool(token),
        )
        style = re.search(r"<style>(.*?)</style>", self._html, re.DOTALL)[1]
        digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
        self.policy = (
            f"default-src 'none'; script-src 'self'; style-src 'sha256-{digest}'; img-src data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        """Lets the judge work as long as the application does."""
        work = asyncio.create_task(self._judge.run())
        try:
            yield
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)

    async def page(self, request: Request) -> Response:
        """Answers with the page that has the microphone."""
        return HTMLResponse(self._html)

    async def health(self, request: Request) -> Response:
        """Tells that the server listens, and how much it has to do."""
        judge = self._judge
        content = {"status": "ok", "listeners": self._listeners}
        return JSONResponse(content | {"answers": judge.answers, "dispatches": judge.dispatches})

    async def describe(self, request: Request) -> Response:
        """Describes this interface to programs."""
        return JSONResponse(openapi.describe(self._judge.model.classes, self._limits))

    async def predict(self, request: Request) -> Response:
        """Judges the recording in the body of a request."""
        with self._place("_uploads", self._limits.uploads):
            if unknown := {*request.query_params} - {*WINDOWING}:
                sentence = f"there is no {min(unknown)[:50]!r}: {', '.join(WINDOWING)}"
                raise Refused(400, sentence)
            most = self._limits.recording
            window, hop = (_seconds(request, name, most) for name in WINDOWING)
            with _in_memory() as (path, file):
                await self._receive(request, file)
                try:
                    answer = await self._judge.judge_recording(path, TITLE, window, hop)
                except ValueError as error:
                    sentence = errors.sentence(error)
                    if sentence is None:
                        raise
                    raise Refused(422, sentence) from error
        return JSONResponse(answer)

    async def listen(self, socket: WebSocket) -> None:
        """Listens to a client until it goes."""
        listener, is_known = Listener(socket, self._judge), self._is_known(socket)
        try:
            await socket.accept()
            # Who has not shown the token takes no place of those who have.
            waits = (
                contextlib.nullcontext()
                if is_known
                else self._place("_strangers", self._limits.strangers)
            )
            with waits:
                await listener.greet(self._token)
            with self._place("_listeners", self._limits.listeners):
                await listener.converse()
            await socket.close()
        except WebSocketDisconnect:
            pass
        except Refused as refused:
            await self._dismiss(socket, refused)
        except Exception:
            await self._dismiss(socket, Refused(500, _FAILED, 1011))
            raise  # for whoever runs the server

    def _is_known(self, socket: WebSocket) -> bool:
        """Tells whether a client shows the token before its first message."""
        try:
            guard.check_token(self._token, guard.bearer(socket.headers))
        except Refused:
            return False
        return bool(self._token)

    async def _dismiss(self, socket: WebSocket, refused: Refused) -> None:
        """Tells a client what is wrong, and closes."""
        with contextlib.suppress(WebSocketDisconnect, RuntimeError, TimeoutError):
            async with asyncio.timeout(self._limits.send_seconds):
                await socket.send_json({"error": refused.sentence})
                await socket.close(refused.code)

    @contextlib.contextmanager
    def _place(self, name: str, most: int) -> Iterator[None]:
        """Counts a client while the block runs; there is no more than one thread."""
        if getattr(self, name) >= most:
            raise Refused(503, f"the server has {most} clients already: try again later", 1013)
        setattr(self, name, getattr(self, name) + 1)
        try:
            yield
        finally:
            setattr(self, name, getattr(self, name) - 1)

    async def _receive(self, request: Request, file: int) -> None:
        """Writes the body of a request into a file, no more of it than is allowed."""
        limits = self._limits
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind.startswith("multipart/"):
            raise Refused(
                415,
                f"the body is {kind}: send the bytes of the recording alone, as "
                "curl --data-binary @a.wav does",
            )
        large = Refused(
            413,
            f"{TITLE} is larger than {limits.upload_bytes / 1e6:g} MB: send a part of it, or "
            "as .flac or .mp3",
        )
        length = request.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limits.upload_bytes:
            raise large
        size = 0
        try:
            async with asyncio.timeout(limits.upload_seconds):
                async for block in request.stream():
                    size += len(block)
                    if size > limits.upload_bytes:
                        raise large
                    view = memoryview(block)
                    while view:
                        view = view[os.write(file, view) :]
        except TimeoutError as error:
            raise Refused(
                408, f"{TITLE} did not come within {limits.upload_seconds:g} s: send it faster"
            ) from error


def _seconds(request: Request, name: str, most: float) -> float:
    text = request.query_params.get(name, "0")
    value = errors.number(text)
    if not 0 <= value <= most:
        raise Refused(400, f"{name}={text[:50]} must be a number of seconds from 0 to {most:g}")
    return value


@contextlib.contextmanager
def _in_memory() -> Iterator[tuple[Path, int]]:
    """Yields the path and the descriptor of a file that no disk holds, and that is gone after."""
    file = os.memfd_create("recording", os.MFD_CLOEXEC)
    try:
        yield Path(f"/proc/{os.getpid()}/fd/{file}"), file
    finally:
        os.close(file)


def _script(name: str) -> Callable[[Request], Response]:
    return lambda request: FileResponse(_PAGE / name, media_type=_TYPE)


async def _refuse(request: Request, error: Refused) -> Response:
    headers = {"retry-after": "5"} if error.status == 503 else {}
    if error.status in (408, 413):  # the rest of the body is not wanted
        headers["connection"] = "close"
    return JSONResponse({"error": error.sentence}, error.status, headers)


async def _no_such(request: Request, error: HTTPException) -> Response:
    sentence = f"{request.method} {request.url.path[:200]}: {error.detail.lower()}"
    return JSONResponse(
        {"error": f"{sentence}; /openapi.json lists what there is"},
        error.status_code,
        error.headers,
    )


async def _fail(request: Request, error: Exception) -> Response:
    # It is raised again, for whoever runs the server.
    del request, error  # it is raised again, for whoever runs the server
    return JSONResponse({"error": _FAILED}, 500)

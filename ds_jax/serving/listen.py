"""One listener: samples come in over a WebSocket, and the emotions of what was said go out."""

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from ds_jax.report import images, pages, panels
from ds_jax.runtime import errors
from ds_jax.serving import guard
from ds_jax.serving.judge import Judge, Shown
from ds_jax.serving.limits import Refused
from ds_jax.serving.speech import Begun, Cutter, Utterance

FULL_SCALE = 32768  # of 16-bit samples
GREY = 128  # of 255, a middle level, which the colour bar of a gate veils
SHOWN = ("name", "caption", "x_ticks", "y_ticks", "bar_ticks", "x_label", "y_label")  # of a panel


class Listener:
    """Serves one WebSocket that is accepted, see docs/on_a_robot.md for what is said over it."""

    def __init__(self, socket: WebSocket, judge: Judge):
        self._socket, self._judge, self._limits = socket, judge, judge.limits
        # What is to be sent, in order; an utterance is a task that judges it. The end is None.
        self._outgoing: asyncio.Queue = asyncio.Queue(judge.limits.behind)
        self._answers: set[asyncio.Task] = set()  # those that are not sent yet
        self._cutter: Cutter | None = None
        self._shows = False

    async def greet(self, token: str) -> None:
        """Reads the first message.

        Raises:
            Refused: It does not come, is impossible, or holds another token.
            WebSocketDisconnect: The client is gone.
        """
        text = await self._receive(self._limits.greeting_seconds, "the first message")
        wanted = _parsed(text)
        if wanted is None:
            raise Refused(400, 'the first message must be text such as {"rate": 16000}', 1003)
        given = wanted.pop("token", None) or guard.bearer(self._socket.headers)
        guard.check_token(token, given)
        if unknown := {*wanted} - {"rate", "pictures"}:
            raise Refused(400, f"there is no field {min(unknown)!r}: rate, pictures, token", 1003)
        self._shows = wanted.get("pictures") is True
        try:
            self._cutter = await self._judge.work(Cutter, wanted.get("rate"), self._limits.piece)
        except ValueError as error:
            raise Refused(400, str(error), 1003) from error

    async def converse(self) -> None:
        """Listens and answers until one of both ends early, or both are done.

        Raises:
            Refused: A message is impossible, or none comes, or the answers are not read.
            WebSocketDisconnect: The client is gone.
        """
        await self._send({"type": "ready", "classes": self._judge.model.classes})
        # asyncio.TaskGroup would leave this task counted as cancelled before Python 3.13.
        tasks = {asyncio.create_task(self._listen()), asyncio.create_task(self._send_answers())}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
        finally:
            tasks |= self._answers
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen(self) -> None:
        """Reads samples until the client says that they end."""
        while True:
            message = await self._receive(self._limits.silence_seconds, "samples, also of silence")
            if isinstance(message, str):
                if (_parsed(message) or {}).get("type") != "end":
                    raise Refused(
                        400, 'samples are binary messages; text ends them: {"type": "end"}', 1003
                    )
                found = await self._judge.work(self._cutter.end)
            else:
                if len(message) % 2:
                    sentence = f"16-bit samples cannot fill {len(message)} bytes"
                    raise Refused(400, sentence, 1003)
                samples = np.frombuffer(message, "<i2").astype(np.float32) / FULL_SCALE
                found = await self._judge.work(self._cutter.add, samples)
            for each in found:  # it waits where too many answers are under way
                if isinstance(each, Begun):
                    await self._outgoing.put({"type": "speech", "start": round(each.start, 3)})
                else:
                    answer = asyncio.create_task(self._answer(each))
                    self._answers.add(answer)
                    await self._outgoing.put(answer)
            if isinstance(message, str):
                await self._outgoing.put({"type": "end"})
                await self._outgoing.put(None)
                return

    async def _answer(self, said: Utterance) -> dict[str, Any]:
        place = {"start": round(said.start, 3), "end": round(said.end, 3)}
        try:
            shares, shown = await self._judge.judge(said.samples, self._cutter.rate, self._shows)
        except (Refused, ValueError) as error:
            reason = error.sentence if isinstance(error, Refused) else errors.sentence(error)
            if reason is None:
                raise
            return {"type": "unusable", **place, "reason": reason}
        described = self._judge.model.describe([(said.start, said.end, shares)], False)
        del described["windows"]
        answer = {"type": "utterance", **place, **described}
        if self._shows:
            answer["pictures"] = await self._judge.work(_draw, shown)
        return answer

    async def _send_answers(self) -> None:
        while (item := await self._outgoing.get()) is not None:
            if isinstance(item, asyncio.Task):
                answer = await item
                self._answers.discard(item)
                item = answer
            await self._send(item)

    async def _send(self, content: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(self._limits.send_seconds):
                await self._socket.send_json(content)
        except TimeoutError as error:
            raise Refused(408, "the answers are not read: read them", 1008) from error
        except RuntimeError as error:  # uvicorn has closed, as after a message that was too large
            raise WebSocketDisconnect(1006) from error

    async def _receive(self, seconds: float, wanted: str) -> str | bytes:
        try:
            async with asyncio.timeout(seconds):
                message = await self._socket.receive()
        except TimeoutError as error:
            raise Refused(408, f"nothing came for {seconds:g} s: send {wanted}") from error
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        return message.get("text") or message.get("bytes") or b""


def _parsed(message: str | bytes) -> dict[str, Any] | None:
    """Returns the object of JSON that a message of text is; None if it is none."""
    try:
        content = json.loads(message) if isinstance(message, str) else None
    except ValueError:
        return None
    return content if isinstance(content, dict) else None


def _draw(shown: Sequence[Shown]) -> list[dict[str, Any]]:
    """Draws pictures, and each once more under each of its gates, as JSON with PNG files in it."""
    drawn = []
    for picture, gates, times, settings in shown:
        for panel in panels.of_pictures([picture], gates, [times], settings):
            if panel.name in gates:
                image = images.veil(picture, panel.values / 255, panel.size)
                bar = images.veil(np.full_like(panel.bar, GREY), panel.bar / 255, (1.0, 1.0))
            else:
                image, bar = (images.colour(it, panel.colour_map) for it in (picture, panel.bar))
            content = {"image": pages.picture_uri(image), "bar": pages.picture_uri(bar)}
            drawn.append(content | {name: getattr(panel, name) for name in SHOWN})
    return drawn

"""Connections that may not wait for their request for ever."""

from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from ds_jax.serving.limits import Limits


class Impatient(H11Protocol):
    """A connection that is closed where no whole request comes in time, the first or another.

    uvicorn alone would keep those that send nothing, or a part of a request, as long as they like.
    """

    def connection_made(self, transport: Any) -> None:
        """Begins to wait for the first request."""
        super().connection_made(transport)
        self._wait()

    def on_response_complete(self) -> None:
        """Begins to wait for the next request."""
        super().on_response_complete()
        self._wait()

    def _wait(self) -> None:
        self.loop.call_later(Limits.greeting_seconds, self._leave, self.cycle)

    def _leave(self, last: Any) -> None:
        is_http = self.transport.get_protocol() is self  # a WebSocket has a protocol of its own
        if is_http and self.cycle is last:
            self.transport.close()

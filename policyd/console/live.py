"""Server-sent events: parts of pages as they become true.

Law: bounded. So many streams are open at once and no more; one that nobody reads ends with its connection, and all end
when the console does. What comes faster than anybody reads is left out, and said to be.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final

from starlette.responses import PlainTextResponse, Response, StreamingResponse

MAX_STREAMS: Final = 64
BEAT_SECONDS: Final = 15.0

_BEAT: Final = b": still here\n\n"


def event(name: str, data: str, at: str = "") -> bytes:
    """One event; a text of several lines arrives as it is. A browser that lost the stream says `at` when it is back."""
    lines = data.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    place = [f"id: {at}\n"] if at else []
    return "".join([f"event: {name}\n", *place, *(f"data: {line}\n" for line in lines), "\n"]).encode()


class Streams:
    """The streams that are open."""

    def __init__(self, stopping: asyncio.Event) -> None:
        self.count = 0
        self._stopping = stopping

    def answer(self, events: AsyncIterator[bytes], holds: Callable[[], bool] = lambda: True) -> Response:
        """Stream events until the reader goes, the session that reads holds no more, or the console ends."""
        if self.count >= MAX_STREAMS:
            return PlainTextResponse("too many pages are live at once; close some\n", 503, {"retry-after": "5"})
        return StreamingResponse(self._counted(events, holds), media_type="text/event-stream")

    async def _counted(self, events: AsyncIterator[bytes], holds: Callable[[], bool]) -> AsyncIterator[bytes]:
        self.count += 1
        stopped = asyncio.ensure_future(self._stopping.wait())
        following = asyncio.ensure_future(anext(events, None))
        try:
            yield b"retry: 2000\n\n"
            while True:
                await asyncio.wait({stopped, following}, timeout=BEAT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if stopped.done() or not holds():
                    return
                if not following.done():
                    yield _BEAT
                    continue
                found = following.result()
                if found is None:
                    return
                yield found
                following = asyncio.ensure_future(anext(events, None))
        finally:
            self.count -= 1
            for task in (stopped, following):
                task.cancel()
            await asyncio.gather(stopped, following, return_exceptions=True)
            if hasattr(events, "aclose"):
                await events.aclose()

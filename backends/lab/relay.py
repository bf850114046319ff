"""A TCP relay that adds delay to a connection without taking bandwidth from it: a delay line, as a long cable is.

Every chunk is handed on `delay` seconds after it came, so a chunk never waits for the one before it. At most `buffer`
bytes are under way in each direction; a sender faster than that meets TCP's own flow control.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from types import TracebackType
from typing import Self

CHUNK = 1 << 18


class _Line:
    """One direction of one connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float, buffer: int) -> None:
        self._reader = reader
        self._writer = writer
        # What was drained is the kernel's, so that an abort after the end takes nothing from it.
        writer.transport.set_write_buffer_limits(high=0)
        self._delay = delay
        self._buffer = buffer
        self._under_way: deque[tuple[float, bytes]] = deque()
        self._held = 0
        self._changed = asyncio.Condition()

    async def run(self) -> None:
        """Carry bytes until the sender closes its side."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._take())
            group.create_task(self._give())

    async def _take(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            data = await self._reader.read(CHUNK)
            async with self._changed:
                self._under_way.append((loop.time() + self._delay, data))
                self._held += len(data)
                self._changed.notify_all()
                if not data:
                    return
                await self._changed.wait_for(lambda: self._held < self._buffer)

    async def _give(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: bool(self._under_way))
                due, data = self._under_way.popleft()
            await asyncio.sleep(due - loop.time())
            if not data:
                if self._writer.can_write_eof():
                    self._writer.write_eof()
                return
            self._writer.write(data)
            await self._writer.drain()
            async with self._changed:
                self._held -= len(data)
                self._changed.notify_all()


class Relay:
    """Listens on 127.0.0.1:`port` and carries every connection to `target_port` with `delay` seconds each way.

    Runs in a thread of its own from `start` to `stop`; also a context manager.
    """

    def __init__(self, target_port: int, delay: float, *, buffer: int = 256 << 20) -> None:
        self.target_port = target_port
        self.delay = delay
        self.port = 0
        self._buffer = buffer
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="lab-relay", daemon=True)
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def start(self) -> Self:
        """Listen on a free port."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(10)
        return self

    def stop(self) -> None:
        """Cut every connection and stop listening. Idempotent."""
        if self._thread.is_alive():
            asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop.close()

    def cut(self) -> None:
        """Break the connections of this moment, as a lost link does; new ones are taken."""
        asyncio.run_coroutine_threadsafe(self._cut(), self._loop).result(10)

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=CHUNK)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port, limit=CHUNK)
        except OSError:
            writer.transport.abort()
            return
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(_Line(reader, far_writer, self.delay, self._buffer).run())
                group.create_task(_Line(far_reader, writer, self.delay, self._buffer).run())
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            for side in (writer, far_writer):
                side.transport.abort()

    async def _cut(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _end(self) -> None:
        if self._server:
            self._server.close()
        await self._cut()
        with contextlib.suppress(OSError):
            if self._server:
                await self._server.wait_closed()

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

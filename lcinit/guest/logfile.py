"""lcinit's own log file while it supervises: written by a thread, because a disk can take its time, and PID 1 cannot.

The lines wait in a bounded buffer; what finds no room there is dropped and counted. The thread is aiofiles' and the
loop's: it exists from the first line on, when the guest is up and nothing is left that needs a single thread.
"""

from __future__ import annotations

import asyncio

import aiofiles

from lcinit import log

ROOM = 256 * 1024  # bytes that wait for the disk
PIECE = 64 * 1024  # bytes of one write
LAST_WORDS = 1.0  # seconds that lcinit's end waits for the disk


class LogFile:
    """The file behind a descriptor that stays the caller's. Needs the loop."""

    def __init__(self, fd: int) -> None:
        self.dropped = 0  # lines that found no room, or could not be written
        self._fd = fd
        self._waiting = bytearray()
        self._some = asyncio.Event()
        self._all_written = asyncio.Event()
        self._all_written.set()
        self._task: asyncio.Task[None] | None = None
        self._failing = False

    def start(self) -> None:
        """Take the log's lines from now on."""
        self._task = asyncio.get_running_loop().create_task(self._write_out())
        log.send_file_to(self.write)

    def write(self, line: bytes) -> None:
        """Take a line; never waits."""
        if len(self._waiting) + len(line) > ROOM:
            self.dropped += 1
            return
        self._waiting += line
        self._all_written.clear()
        self._some.set()

    async def drain(self) -> None:
        """Wait until all is written, for a second at most."""
        try:
            async with asyncio.timeout(LAST_WORDS):
                await self._all_written.wait()
        except TimeoutError:
            self.dropped += self._waiting.count(b"\n")

    def close(self) -> None:
        """Take no more lines: the log writes them itself again."""
        log.send_file_to(None)
        if self._task is not None:
            self._task.cancel()

    async def _write_out(self) -> None:
        async with aiofiles.open(self._fd, "ab", buffering=0, closefd=False) as file:
            while True:
                await self._some.wait()
                self._some.clear()
                while self._waiting:
                    piece = bytes(self._waiting[:PIECE])
                    try:
                        taken = await file.write(piece)
                    except OSError as error:
                        taken = 0
                        self._fail(error)
                    if not taken:  # None: a FIFO that nobody reads is full
                        self.dropped += piece.count(b"\n")
                        taken = len(piece)
                    else:
                        self._failing = False
                    del self._waiting[:taken]
                self._all_written.set()

    def _fail(self, error: OSError) -> None:
        """Say so once, until it works again; the console hears it in any case."""
        if not self._failing:
            self._failing = True
            log.warning(f"the log file cannot be written: {error.strerror}")

"""The requests that arrive on /dev/initctl, apart from how they arrive. Pure: bytes in, requests out.

Source of the format: initreq.h of sysvinit. A request is 384 bytes in native byte order: four ints (magic, cmd,
runlevel, sleeptime) and 368 bytes of data.
"""

from __future__ import annotations

import struct

from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal, Self

    StopWord = Literal["poweroff", "halt", "reboot"]
    Word = Literal["poweroff", "halt", "reboot", "reexec", "reload"]

INIT_MAGIC = 0x03091969
INIT_CMD_START = 0
INIT_CMD_RUNLVL = 1
INIT_CMD_POWERFAIL = 2
INIT_CMD_POWERFAILNOW = 3
INIT_CMD_POWEROK = 4
INIT_CMD_BSD = 5
INIT_CMD_SETENV = 6
INIT_CMD_UNSETENV = 7

DATA_SIZE = 368
_LAYOUT = struct.Struct(f"=iiii{DATA_SIZE}s")
REQUEST_SIZE = _LAYOUT.size
_MAGIC = struct.pack("=i", INIT_MAGIC)

# What telinit(8) of sysvinit takes; letters are sent as they were written.
RUNLEVELS = "0123456789sSqQabcuU"

# Those that services may belong to; s and S are one.
SERVICE_RUNLEVELS = "12345S"

# sysvinit keeps as many variables (NR_EXTRA_ENV of init.c); more are dropped.
MAX_VARIABLES = 16


class Request(Record):
    """One request. `runlevel` is the code of an ASCII character, `sleeptime` seconds between SIGTERM and SIGKILL.

    `data` is at most 368 bytes; trailing zero bytes are not kept.
    """

    cmd: int
    runlevel: int = 0
    sleeptime: int = 0
    data: bytes = b""

    def pack(self) -> bytes:
        """The 384 bytes on the wire. Raises ValueError where a field does not fit."""
        if len(self.data) > DATA_SIZE:
            raise ValueError(f"the data of an initctl request has {len(self.data)} bytes; {DATA_SIZE} is the most")
        try:
            return _LAYOUT.pack(INIT_MAGIC, self.cmd, self.runlevel, self.sleeptime, self.data)
        except struct.error as error:
            raise ValueError(f"a field of an initctl request does not fit: {error}") from None

    @classmethod
    def parse(cls, frame: bytes) -> Self:
        """The request in exactly 384 bytes. Raises ValueError for another size or a wrong magic."""
        if len(frame) != REQUEST_SIZE:
            raise ValueError(f"an initctl request has {REQUEST_SIZE} bytes, not {len(frame)}")
        magic, cmd, runlevel, sleeptime, data = _LAYOUT.unpack(frame)
        if magic != INIT_MAGIC:
            raise ValueError(f"an initctl request begins with {INIT_MAGIC:#010x}, not {magic & 0xFFFFFFFF:#010x}")
        return cls(cmd=cmd, runlevel=runlevel, sleeptime=sleeptime, data=data.rstrip(b"\0"))

    @property
    def level(self) -> str:
        """The runlevel as one character; '?' where it is none that telinit(8) knows."""
        character = chr(self.runlevel) if 0 <= self.runlevel < 128 else "?"
        return character if character in RUNLEVELS else "?"


def runlevel_request(level: str, sleeptime: int = 0) -> Request:
    """The request that `telinit LEVEL` sends. Raises ValueError for a runlevel that does not exist."""
    if len(level) != 1 or level not in RUNLEVELS:
        raise ValueError(f"{level!r} is not a runlevel")
    return Request(cmd=INIT_CMD_RUNLVL, runlevel=ord(level), sleeptime=sleeptime)


class FrameReader:
    """Cuts a byte stream into requests, and finds the next one again after anything that is none.

    Writers do not speak as one: a frame may be cut short and the next writer's follow at once. A frame in whose midst
    another magic begins is therefore taken for a cut one, and reading goes on at the inner magic; a rightful request
    never holds those four bytes, because its data is text. Never keeps more than one frame's bytes.
    """

    def __init__(self) -> None:
        self._pending = b""
        self.skipped = 0  # bytes that belonged to no request

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished frame are kept."""
        return len(self._pending)

    def feed(self, received: bytes) -> list[Request]:
        """The requests that these bytes complete, in order."""
        stream = self._pending + received
        requests: list[Request] = []
        at = 0
        while True:
            start = stream.find(_MAGIC, at)
            if start < 0:
                # the stream's last bytes may be the beginning of a magic
                kept = _prefix_at_end(stream, at)
                self.skipped += len(stream) - at - kept
                self._pending = stream[len(stream) - kept :]
                return requests
            self.skipped += start - at
            inner = stream.find(_MAGIC, start + 1, start + REQUEST_SIZE + len(_MAGIC) - 1)
            if inner >= 0:
                self.skipped += inner - start
                at = inner
                continue
            if len(stream) - start < REQUEST_SIZE:
                self._pending = stream[start:]
                return requests
            at = start + REQUEST_SIZE
            requests.append(Request.parse(stream[start:at]))


def _prefix_at_end(stream: bytes, start: int) -> int:
    """How many of the last bytes are the beginning of a magic."""
    for length in range(min(len(_MAGIC) - 1, len(stream) - start), 0, -1):
        if stream.endswith(_MAGIC[:length]):
            return length
    return 0


class InitVariables:
    """The variables that requests set: `INIT_*` names alone, as sysvinit has it, and never more than 16.

    They are no process's environment: lcinit reads INIT_HALT and gives none of them on.
    """

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        """`values` is what another one's `as_dict` gave."""
        self._values = {name.encode("latin-1"): value.encode("latin-1") for name, value in (values or {}).items()}

    def as_dict(self) -> dict[str, str]:
        """All of them; bytes that are no ASCII are Latin-1 characters."""
        return {name.decode("latin-1"): value.decode("latin-1") for name, value in self._values.items()}

    def get(self, name: str) -> str | None:
        """The value; None when it is not set."""
        value = self._values.get(name.encode())
        return None if value is None else value.decode("ascii", "replace")

    def __len__(self) -> int:
        return len(self._values)

    def apply(self, request: Request) -> None:
        """Set or unset what a request of cmd 6 or 7 names: `NAME=VALUE` sets, `NAME` unsets, zero bytes between."""
        for entry in request.data.split(b"\0"):
            name, equals, value = entry.partition(b"=")
            if not name.startswith(b"INIT_"):
                continue
            self._values.pop(name, None)
            if equals and request.cmd == INIT_CMD_SETENV and len(self._values) < MAX_VARIABLES:
                self._values[name] = value


def stop_word(request: Request, variables: InitVariables) -> StopWord | None:
    """Which end of the guest a request asks for; None when it asks for something else.

    Runlevel 0 is poweroff, 6 reboot; shutdown(8) of sysvinit sets INIT_HALT=HALT before it asks for runlevel 0 when
    halt is meant.
    """
    if request.cmd != INIT_CMD_RUNLVL:
        return None
    if request.level == "6":
        return "reboot"
    if request.level == "0":
        return "halt" if variables.get("INIT_HALT") == "HALT" else "poweroff"
    return None


class Answer(Record):
    """What a supervisor makes of a request: `word` is asked of it, `runlevel` is to be gone to, `remark` goes to the
    log; each may be missing."""

    word: Word | None = None
    runlevel: str | None = None
    remark: str = ""


def answer(request: Request, variables: InitVariables, *, runlevels: bool = False) -> Answer:
    """What a request means to an init; one of cmd 6 or 7 changes `variables`. `runlevels` says whether it has runlevels
    of its own, which are those of its services.

    sysvinit answers a failing power supply with the `powerfail` entries of inittab(5), which shut down.
    """
    word = stop_word(request, variables)
    if word is not None:
        return Answer(word=word)
    if request.cmd == INIT_CMD_RUNLVL:
        if request.level in "uU":
            return Answer(word="reexec")
        return _runlevel(request.level, runlevels)
    if request.cmd in (INIT_CMD_SETENV, INIT_CMD_UNSETENV):
        variables.apply(request)
        return Answer()
    if request.cmd in (INIT_CMD_POWERFAIL, INIT_CMD_POWERFAILNOW):
        return Answer(word="poweroff", remark="the power is failing")
    if request.cmd == INIT_CMD_POWEROK:
        return Answer(remark="the power is back; a stop that has begun goes on")
    return Answer(remark=f"request {request.cmd} was ignored: no init of Linux knows it")


def _runlevel(level: str, runlevels: bool) -> Answer:
    """What a level means that neither stops the guest nor starts init anew."""
    if not runlevels:
        return Answer(remark=f"runlevel {level} was asked for and ignored: runlevels belong to services")
    if level.upper() in SERVICE_RUNLEVELS:
        return Answer(runlevel=level.upper())
    if level in "qQ":
        return Answer(word="reload")
    if level in "abc":
        return Answer(remark=f"runlevel {level} was asked for and ignored: services have no on-demand entries")
    return Answer(remark=f"runlevel {level} was asked for and ignored: no service belongs to it")

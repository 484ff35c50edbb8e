"""`initctl serve`: the keeper's FIFO for an init that lcinit did not hand over to."""

from __future__ import annotations

import os
import stat

from lcinit.control.keeper import Keeper
from lcinit.control.keeper_options import Options, signal_number
from lcinit.errors import SystemFailure, UsageError
from lcinit.plan.inits import INITS, PLAIN, kind_of, stop_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_EXAMINED = 1 << 20  # bytes of the init's program that tell what it is


def serve(pid: int, fifo: str, overrides: Mapping[str, str]) -> int:
    """Serve the FIFO for the init `pid` until it ends or a signal comes; 0. Raises SystemFailure or UsageError.

    `overrides` maps poweroff, halt and reboot to the names of signals.
    """
    kind = init_kind(pid)
    names = stop_signals(kind, tuple(overrides.items()))
    if kind == PLAIN.kind:
        # an unknown program is asked to end, whatever the reason
        names = dict.fromkeys(("poweroff", "halt", "reboot"), "SIGTERM") | names
    arguments = ["--pid", str(pid), "--name", os.path.basename(fifo), "--foreground"]
    for word, name in names.items():
        try:
            arguments += [f"--{word}", str(signal_number(name))]
        except ValueError as error:
            raise UsageError(f"--{word}: {error}", hint="SIGTERM, SIGRTMIN+4 or a number") from None
    if not INITS[kind].catches:
        arguments.append("--repeat")
    _refuse_foreign(fifo)
    try:
        directory = os.open(os.path.dirname(fifo) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            owner = f"{os.geteuid()}:{os.getegid()}"
            keeper = Keeper(Options([*arguments, "--initctl-dir", str(directory), "--owner", owner]))
            return keeper.run()
        finally:
            os.close(directory)
    except OSError as error:
        raise SystemFailure.from_os_error(f"serve {fifo} for PID {pid}", error) from error


def init_kind(pid: int) -> str:
    """The kind of a running init, from its program (see `plan.inits`). Raises SystemFailure when it is not there."""
    program = f"/proc/{pid}/exe"
    try:
        with open(program, "rb") as file:
            return kind_of(os.readlink(program), file.read(_EXAMINED))
    except OSError as error:
        raise SystemFailure.from_os_error(f"see what PID {pid} is", error) from error


def _refuse_foreign(fifo: str) -> None:
    """What stands at the name may be a FIFO that nobody reads, left by one who was killed, and nothing else."""
    try:
        status = os.lstat(fifo)
    except FileNotFoundError:
        return
    except OSError as error:
        raise SystemFailure.from_os_error(f"make {fifo}", error) from error
    if not stat.S_ISFIFO(status.st_mode):
        raise SystemFailure(f"{fifo} exists and is no FIFO", hint="remove it, or name another path with --fifo")
    try:
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC))
    except OSError:
        return  # ENXIO: nobody reads it
    raise SystemFailure(f"{fifo} is served already", hint="ask that init instead, or name another path with --fifo")

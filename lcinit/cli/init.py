"""`lcinit init`: be PID 1. Its few options are read by hand: argparse takes longer to import than a boot may."""

from __future__ import annotations

import gc
import os
import sys

from lcinit import __version__, imports, log
from lcinit.cli.privileges import refuse_setuid
from lcinit.errors import SystemFailure, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from typing import Never

    from lcinit.boot.reading import Reading
    from lcinit.boot.world import World
    from lcinit.config.values import Config
    from lcinit.plan.supervision import Supervision
    from lcinit.service.early import Early
    from lcinit.service.reader import Reader
    from lcinit.supervisor.guest_state import Action
else:
    import _signal as signal  # without the half that imports enum, which takes longer than the fork below

HELP = """\
usage: lcinit init [--config FILE] [--override-exec] [--no-pid1] [--] [ARG...]
       init RUNLEVEL

Be PID 1 of a container: read the configuration, prepare the guest root, unshare, enter it and exec the guest's init.
When it is not PID 1, `init RUNLEVEL` asks the running init for a runlevel, as telinit does.

options:
  --config FILE    the configuration (default: /mnt/init.yml, and all defaults where that is missing)
  --override-exec  ARG... replaces exec.command; without it ARG... is appended to the configured command, and is the
                   command where none is configured
  --no-pid1        run although this is not PID 1
  --help           this text
  --version        the version

exit codes, if the guest was not started: 64 usage or not PID 1, 71 system error, 77 permission, 78 configuration, 126
and 127 a command that cannot be run or is not there, else that of the command that failed. Once it was started the exit
code is the guest's.

example: start a guest that stands in /mnt/root, in namespaces of its own; its init leaves the terminal raw
  unshare --fork --pid --mount --net lcinit init; stty sane
"""

# fs.nr_open as the kernel has it; where libc lacks close_range(2) each number below is a call of its own
_PAST_ANY_DESCRIPTOR = 1 << 20

RUNLEVELS = frozenset("0123456SsQqUuabc")


def run(args: list[str], program: str) -> int:
    """Parse, and boot or talk to the init that runs."""
    config: str | None = None
    override = False
    pid1_only = True
    rest = list(args)
    while rest:
        word = rest[0]
        if word == "--":
            rest.pop(0)
            break
        if not word.startswith("-") or word == "-":
            break
        rest.pop(0)
        if word in ("-h", "--help"):
            print(HELP, end="")
            return 0
        if word == "--version":
            print(f"lcinit {__version__}")
            return 0
        if word == "--config":
            if not rest:
                raise UsageError("--config needs a FILE")
            config = rest.pop(0)
        elif word.startswith("--config="):
            config = word.partition("=")[2]
        elif word == "--override-exec":
            override = True
        elif word == "--no-pid1":
            pid1_only = False
        else:
            raise UsageError(f"unknown option {word}", hint=f"`{program} --help` lists them; -- ends options")
    handed = os.environ.pop("LCINIT_STATE_FD", None)
    if handed is not None:
        refuse_setuid()
        return _take_over(handed, config, tuple(rest), override_exec=override)
    if os.getpid() != 1 and pid1_only and len(rest) == 1 and rest[0] in RUNLEVELS and config is None:
        from lcinit.cli import telinit

        return telinit.run(rest, program)
    refuse_setuid()
    if pid1_only and os.getpid() != 1:
        raise UsageError(
            f"this is process {os.getpid()}, not PID 1 of a container",
            hint="start it as the container's init, or give --no-pid1; `init RUNLEVEL` talks to a running init",
        )
    imports.use()
    gc.disable()  # until all is imported: there is no garbage, and a look for it takes milliseconds
    take_streams()
    # from here on no signal is lost: all wait, blocked, until there is something that reads them
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    from lcinit.boot.reading import Reading

    if config is not None and not os.path.isabs(config):
        config = os.path.join(os.getcwd(), config)  # who reads it again may be elsewhere
    try:
        reading = Reading(config, _read_services)
    except SystemFailure as error:
        log.error(str(error))
        return error.exit_code
    early = _begin_early(reading.path) if reading.mentions_services() else None
    from lcinit.boot import boot
    from lcinit.cli.main import main

    if early is not None:
        _import_for_services(reading)
    if sys.stdout is not None:  # None where PID 1 was started without one
        sys.stdout.flush()

    def stay(world: World) -> int:
        """What a handoff does without: only a PID 1 that stays imports it."""
        from lcinit.guest.stay import stay

        # the interpreter's own end would take longer than the guest's
        os._exit(stay(world, lambda rules: _stay_with_services(world, rules, reading, early)))

    return boot.init(reading, tuple(rest), override_exec=override, main=main, stay=stay, early=early)


def _begin_early(path: str | None) -> Early | None:
    """None where it cannot be had: if there are services at all it is tried again, and told then."""
    try:
        return _begin_services(path)
    except SystemFailure:
        return None


def _begin_services(path: str | None) -> Early:
    from lcinit.service.early import Early

    return Early(path)


def _import_for_services(reading: Reading) -> None:
    """While the configuration is being read: once it is, the services are asked for first."""
    from lcinit.guest import stay as _stay  # noqa: F401
    from lcinit.service import stay

    stay.prepare(enough=reading.is_ready)


def _stay_with_services(
    world: World, rules: Supervision, reading: Reading, early: Early | None
) -> tuple[Action, Reader]:
    from lcinit.service.stay import stay

    return stay(world, rules, reading, (early or _begin_services(reading.path)).spawner)


def _read_services(config: Config, path: str | None, channel: socket.socket) -> Never:
    """In the process that has read a configuration with services: read these, too."""
    from lcinit.boot.own import reader
    from lcinit.service.reader_process import first

    first(config, path, channel, reader)


def _take_over(handed: str, config: str | None, arguments: tuple[str, ...], *, override_exec: bool) -> int:
    """`lcinit reexec`: this process was another lcinit a moment ago. The names are those of guest.reexec."""
    from lcinit.cli.main import main
    from lcinit.guest import takeover

    rehearsal = os.environ.pop("LCINIT_REHEARSAL", None) is not None
    invocation = takeover.Invocation(config, arguments, override_exec=override_exec, main=main)
    return takeover.run(handed, invocation, rehearsal=rehearsal)


def take_streams() -> None:
    """Have three standard streams, and no other descriptor that PID 1 was started with.

    A stream that is missing would be the next thing that is opened, and the guest would be given that. An outer
    directory of any number would be a way out of its root, by a link to /proc/self/fd/N where PID 1 follows links
    (CVE-2024-21626). Python itself does not start with a directory as a standard stream.

    Where there is neither /dev/null nor /proc this is the kernel's first process, and it had no /dev/console for it:
    the streams are memory until the plan has mounted a /dev and opened the console.
    """
    os.closerange(3, _PAST_ANY_DESCRIPTOR)
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
        except OSError:
            try:
                null = _null()  # takes the lowest number that is free: this one
            except OSError as error:
                raise SystemFailure.from_os_error("open /dev/null for a standard stream", error) from error
            os.set_inheritable(null, True)


def _null() -> int:
    try:
        return os.open("/dev/null", os.O_RDWR)
    except FileNotFoundError:
        if os.path.exists("/proc/self"):
            raise
        return os.memfd_create("no-console")

"""The guest's /dev/console: a terminal that belongs to the guest's root."""

from __future__ import annotations

import errno
import os

from lcinit import log
from lcinit.boot import mounts
from lcinit.boot.world import World
from lcinit.errors import SystemFailure
from lcinit.linux import process
from lcinit.plan import steps as s


def terminal() -> int | None:
    """Which of the standard streams is a terminal; None if none is."""
    return next((fd for fd in (0, 1, 2) if os.isatty(fd)), None)


def terminal_is_foreign(world: World) -> bool:
    """Whether a guest could type into it for whoever started lcinit, were it the guest's (TIOCSTI, CVE-2017-5226).

    Otherwise it is made the controlling terminal where this session has none, for the sake of job control.
    """
    stream = terminal()
    if stream is None:
        return False
    if world.config.id_map is not None and not world.console_own:
        return True
    if os.getsid(0) == os.getpid():
        try:
            process.set_controlling_tty(stream)
        except OSError as error:
            log.debug(f"no job control on the console: {error.strerror}")  # it is another session's
    return False


def open_console(world: World, step: s.OpenConsole) -> None:
    """What the kernel does before it starts PID 1, done again now that there is a /dev; /dev/null without a console."""
    try:
        console = os.open("/dev/console", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError as error:
        if error.errno not in (errno.ENODEV, errno.ENXIO, errno.EIO, errno.ENOENT):
            raise
        console = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(console, fd, inheritable=True)
    os.close(console)


def set_up_console(world: World, step: s.ConsoleStep) -> None:
    """Bind the manager's terminal before the user namespace exists, or make a pty in the guest's devpts after it."""
    if step.how == "relay":
        _fresh_pty(world, plain=step.plain)
        return
    if step.how == "keep":
        return
    stream = terminal()
    if stream is None:
        raise SystemFailure("the console is no terminal any more")
    if step.how == "own":
        os.fchown(stream, *world.owner)
    _bind(world, _path_of(stream))
    world.console_own = True


def _path_of(stream: int) -> int:
    """A handle of the terminal in this mount namespace; the descriptor itself may come from another one."""
    wanted = os.fstat(stream)
    for path in ("/dev/console", os.ttyname(stream)):
        try:
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        found = os.fstat(handle)
        if (found.st_rdev, found.st_ino, found.st_dev) == (wanted.st_rdev, wanted.st_ino, wanted.st_dev):
            return handle
        os.close(handle)
    raise SystemFailure("the container's terminal is not in its /dev", hint="have the manager mount it on /dev/console")


def _bind(world: World, source: int) -> None:
    """Bind the terminal of a handle, which is closed."""
    try:
        mounts.bind_on_file(world, source, "dev/console")
    finally:
        os.close(source)


def _fresh_pty(world: World, *, plain: bool) -> None:
    if world.init_kind == "plain" and not plain:
        # it keeps its streams; what opens /dev/console by name must not find an ordinary file
        _bind(world, world.open_guest("dev/null"))
        return
    master, slave = process.open_pty(world.open_guest("dev/pts/ptmx", os.O_RDWR | os.O_NOCTTY))
    number = process.pty_number(master)
    _bind(world, world.open_guest(f"dev/pts/{number}"))
    world.console_master = master
    world.console_slave = slave
    world.keeper_needed = True

"""exec.on_failure: shell. A shell on the console after a phase has failed, for whoever sits there."""

from __future__ import annotations

import errno
import os
import select

from lcinit import log
from lcinit.boot.world import World
from lcinit.errors import LcinitError
from lcinit.linux import process, signals
from lcinit.supervisor.spawn import Program, spawn
from lcinit.supervisor.watch import STOP


def rescue_shell(world: World) -> None:
    """Run it in whichever root PID 1 is, and return when it has ended or PID 1 is asked to stop.

    It has job control where its terminal can be had: one that another session holds can only be taken with
    CAP_SYS_ADMIN outside of the guest's user namespace (ioctl_tty(2), TIOCSCTTY).
    """
    where = "guest root" if world.pivoted else "boot root"
    log.warning(f"on_failure: a shell in the {where}; the container ends with it")
    given = dict(world.guest_environment) if world.pivoted else world.outer_environment
    environment = tuple({"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", **given}.items())
    shell = Program(argv=("/bin/sh",), environment=environment, cwd="/", stdin=0)
    try:
        watched = signals.SignalFd()
        if os.isatty(0):
            _let_go_of_terminal()
            watched.read()  # the SIGHUP that comes of it is no request
        _wait(_start(shell), watched)
    except (OSError, LcinitError) as error:
        log.error(f"no rescue shell: {error}")


def _let_go_of_terminal() -> None:
    """If PID 1's session holds the terminal, give it up, so that the shell's can have it."""
    try:
        process.drop_controlling_tty(0)
    except OSError as error:
        if error.errno != errno.ENOTTY:
            raise


def _start(shell: Program) -> int:
    if os.isatty(0):
        try:
            return spawn(shell.replace(terminal=True))
        except LcinitError as error:
            log.debug(f"the shell has no job control: {error.message}")
    return spawn(shell)


def _wait(shell: int, watched: signals.SignalFd) -> None:
    """Reap until the shell has ended or somebody asks PID 1 to stop: then the kernel ends the shell with PID 1."""
    while True:
        select.select([watched.fileno()], [], [])
        for signal in watched.read():
            if signal.signo in STOP:
                log.warning(f"{signals.signal_name(signal.signo)}: the container ends")
                return
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == shell:
                return
            if pid == 0:
                break

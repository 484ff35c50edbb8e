"""The one way to start a program: fork, a clean slate, exec, and the truth about why it failed."""

from __future__ import annotations

import errno
import os
import resource
import struct

from lcinit.errors import EX_CANNOT_RUN, EX_NOT_FOUND, EX_SOFTWARE, CommandFailed
from lcinit.linux.process import close_range, set_controlling_tty
from lcinit.linux.signals import reset_signals
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal, Never

_REPORT = struct.Struct("=i200s")


class Identity(Record):
    """Whom a program runs as: numbers only, resolved by the caller without NSS."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Program(Record):
    """What to start. `stdin` None is /dev/null; `environment` is the whole of it.

    It leads a session of its own; with `terminal` its stdin becomes the controlling terminal of that session. With
    `session` "group" it only leads a process group, the foreground one if stdin is this session's terminal. `limits`
    are (resource, soft, hard) of setrlimit(2), None for infinity.
    A `function` is run in the child instead of an exec of `argv`; what it returns is the exit code.
    """

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    stdin: int | None = None
    stdout: int = 1
    stderr: int = 2
    identity: Identity | None = None
    function: Callable[[], int] | None = None
    terminal: bool = False
    session: Literal["new", "group"] = "new"
    limits: tuple[tuple[int, int | None, int | None], ...] = ()


def spawn(program: Program) -> int:
    """Start it and return its PID once the exec has succeeded.

    Raises CommandFailed with exit code 127 (not found) or 126 (cannot be run), as a shell does, or OSError from fork.
    It waits for the exec, which somebody can hold up who has the program's file, or may stop the child.
    """
    pid, reader = begin(program)
    failure = told(program, reader)
    if failure is not None:
        os.waitpid(pid, 0)
        raise failure
    return pid


def begin(program: Program) -> tuple[int, int]:
    """Fork for it: the child's PID, and what `told` takes when that can be read. Raises OSError."""
    reader, writer = os.pipe2(os.O_CLOEXEC)
    try:
        pid = os.fork()
        if pid == 0:
            _child(program, writer)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return pid, reader


def told(program: Program, reader: int) -> CommandFailed | None:
    """Wait for the exec of a child: why there was none, and the child ends; else None. Closes `reader`."""
    try:
        report = _read_report(reader)
    finally:
        os.close(reader)
    if not report:
        return None
    number, call = _REPORT.unpack(report)
    where = call.rstrip(b"\0").decode("utf-8", "replace")
    not_found = where == "exec" and number in (errno.ENOENT, errno.ENOTDIR)
    return CommandFailed(
        f"cannot run {program.argv[0]!r}: {'not found' if not_found else f'{where}: {os.strerror(number)}'}",
        exit_code=EX_NOT_FOUND if not_found else EX_CANNOT_RUN,
    )


def _read_report(reader: int) -> bytes:
    while True:
        try:
            return os.read(reader, _REPORT.size)
        except InterruptedError:
            continue


def _child(program: Program, report: int) -> Never:
    """In the forked child: only system calls, and exec or _exit at the end whatever happens."""
    call = "start"
    try:
        if program.session == "new":
            os.setsid()
        else:
            os.setpgid(0, 0)
        call = "open streams"
        report = _place_streams(program, report)
        if program.session == "group":
            _take_foreground()
        call = "set limits"
        _set_limits(program)
        if program.terminal:
            call = "take the terminal"
            set_controlling_tty(0, steal=True)
        if program.cwd is not None:
            call = f"enter {program.cwd}"
            os.chdir(program.cwd)
        if program.identity is not None:
            call = "change user"
            os.setgroups(program.identity.groups)
            os.setresgid(program.identity.gid, program.identity.gid, program.identity.gid)
            os.setresuid(program.identity.uid, program.identity.uid, program.identity.uid)
        os.umask(0o022)
        reset_signals()
        if program.function is not None:
            os.close(report)
            _call(program.function, dict(program.environment))
        call = "exec"
        execute(program.argv, dict(program.environment))
    except OSError as error:
        os.write(report, _REPORT.pack(error.errno or errno.EIO, call.encode("utf-8", "surrogateescape")[:200]))
    finally:
        os._exit(EX_CANNOT_RUN)


def _take_foreground() -> None:
    """Be the terminal's foreground process group, where there is a terminal of this session. SIGTTOU is blocked."""
    try:
        os.tcsetpgrp(0, os.getpgrp())
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EPERM, errno.EIO, errno.ENXIO):
            raise


def _set_limits(program: Program) -> None:
    for number, soft, hard in program.limits:
        pair = [resource.RLIM_INFINITY if value is None else value for value in (soft, hard)]
        try:
            resource.setrlimit(number, (pair[0], pair[1]))
        except ValueError as error:
            raise OSError(errno.EPERM, os.strerror(errno.EPERM)) from error


def _call(function: Callable[[], int], environment: dict[str, str]) -> Never:
    """Run a function as if it were a program: its environment is the process's, its return the exit code."""
    import sys

    status = EX_SOFTWARE
    try:
        os.environ.clear()
        os.environ.update(environment)
        try:
            status = function()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 0
        sys.stdout.flush()
    except BaseException:
        sys.excepthook(*sys.exc_info())
        sys.stderr.flush()
    finally:
        os._exit(status)


def _place_streams(program: Program, report: int) -> int:
    """Streams to 0, 1 and 2, nothing else open but the report pipe (close-on-exec); returns its new number."""
    import fcntl

    report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, 10)
    # O_NONBLOCK: a command that ran before in the guest root may have left a FIFO there
    stdin = os.open("/dev/null", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) if program.stdin is None else program.stdin
    sources = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (stdin, program.stdout, program.stderr)]
    for target, source in enumerate(sources):
        os.dup2(source, target, inheritable=True)
    if report > 3:
        close_range(3, report - 1)
    close_range(report + 1)
    return report


def execute(argv: tuple[str, ...], environment: dict[str, str]) -> Never:
    """execve(2) with a search of the environment's PATH as execvp(3) does, without its fallback to a shell.

    Raises OSError: ENOENT when nothing was found, else the first error that says more than that.
    """
    name = argv[0]
    if "/" in name:
        os.execve(name, argv, environment)
    told: OSError | None = None
    for directory in environment.get("PATH", "/usr/bin:/bin").split(":"):
        try:
            os.execve(f"{directory or '.'}/{name}", argv, environment)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR) and told is None:
                told = error
    raise told or FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)

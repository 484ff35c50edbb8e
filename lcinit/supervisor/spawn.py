"""The one way to start a program: fork, a clean slate, isolation, exec, and the truth about why one of them failed."""

from __future__ import annotations

import errno
import os
import struct

from lcinit.errors import EX_CANNOT_RUN, EX_NOT_FOUND, EX_SOFTWARE, CommandFailed, LcinitError
from lcinit.linux import clone
from lcinit.linux.process import close_range, set_controlling_tty
from lcinit.linux.signals import reset_signals, set_mask
from lcinit.supervisor import accounts, environments, isolation, oom_score
from lcinit.supervisor.program import Account as Account
from lcinit.supervisor.program import Identity as Identity
from lcinit.supervisor.program import Program as Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Never

    from lcinit.supervisor.isolation import Step

_NUMBER = struct.Struct("=i")  # a report begins with errno, 0 for one that is all words
REPORT_MOST = 1024


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
        pid = fork(program, writer)
    except BaseException:
        os.close(reader)
        raise
    finally:
        os.close(writer)
    return pid, reader


def fork(program: Program, report: int) -> int:
    """Fork for it: the child's PID. The child writes why there is no exec to `report`, and has it closed by an exec.

    Raises OSError.
    """
    child = Child(program, report, within_cgroup=False, default_signals=False)
    child.lend_oom_score()
    try:
        pid = os.fork()
        if pid == 0:
            child.run()
    finally:
        child.take_back_oom_score()
    return pid


def told(program: Program, reader: int) -> CommandFailed | None:
    """Wait for the exec of a child: why there was none, and the child ends; else None. Closes `reader`."""
    try:
        report = _read_report(reader)
    finally:
        os.close(reader)
    return failure_of(program.argv[0], report) if report else None


def _read_report(reader: int) -> bytes:
    while True:
        try:
            return os.read(reader, REPORT_MOST)
        except InterruptedError:
            continue


def report_of(call: str, error: OSError | LcinitError) -> bytes:
    """What a child says of a step that failed; `call` are the step's words."""
    if isinstance(error, LcinitError):
        number, text = 0, str(error)
    else:
        number, text = error.errno or errno.EIO, call
        name = os.fsdecode(error.filename) if isinstance(error.filename, (str, bytes)) else ""
        if name and name not in text and call != "exec":
            text = f"{call} ({name})"
    return _NUMBER.pack(number) + text.encode("utf-8", "surrogateescape")[: REPORT_MOST - _NUMBER.size]


def failure_of(name: str, report: bytes) -> CommandFailed:
    """The error that a report means for the program of this name."""
    (number,) = _NUMBER.unpack_from(report)
    text = report[_NUMBER.size :].decode("utf-8", "replace")
    not_found = text == "exec" and number in (errno.ENOENT, errno.ENOTDIR)
    why = "not found" if not_found else f"{text}: {os.strerror(number)}" if number else text
    return CommandFailed(f"cannot run {name!r}: {why}", exit_code=EX_NOT_FOUND if not_found else EX_CANNOT_RUN)


class Child:
    """A program between its fork and its exec. It is made before the fork, with all that can be known there.

    `within_cgroup`: the fork puts it there. `default_signals`: the parent ignores and handles none.
    """

    def __init__(self, program: Program, report: int, *, within_cgroup: bool, default_signals: bool) -> None:
        self.program = program
        self.report = report
        self._call = "start"
        self._environment = dict(program.environment)
        self._steps = self._order(within_cgroup, default_signals)
        self._image: clone.Image | None = None
        self._oom_score: int | None = None
        if not program.environment_files and program.account is None and program.function is None:
            try:
                self._image = self._prepare()
            except OSError:
                pass  # the child fails in the same way, and reports it

    def _order(self, within_cgroup: bool, default_signals: bool) -> list[Step]:
        """The cgroup first, for what follows counts; what takes privilege before there is less; the mask last, so that
        no signal ends it on the way.
        """
        program = self.program
        steps: list[Step] = []
        if program.cgroup is not None and not within_cgroup:
            steps.append(("enter its cgroup", _enter_cgroup, (program.cgroup,)))
        steps.append(("start", os.setsid, ()) if program.session == "new" else ("start", os.setpgid, (0, 0)))
        steps.append(("open streams", self._place_streams, ()))
        if program.session == "group":
            steps.append(("open streams", _take_foreground, ()))
        if program.terminal or program.tty is not None:
            steps.append(("take the terminal", set_controlling_tty, (0, True)))
        steps += isolation.mounts(program)
        if program.environment_files:
            steps.append(("read environment_file", self._read_environment, ()))
        steps += isolation.priorities(program)
        steps += isolation.bounding(program)
        keep = program.capabilities is not None
        if program.account is not None:
            steps.append(("change user", self._become_account, (keep,)))
        elif program.identity is not None:
            steps.append(("change user", isolation.become, (program.identity, keep)))
        steps += isolation.privileges(program)
        steps += isolation.place(program)
        steps.append(("reset signals", set_mask, (0,)) if default_signals else ("reset signals", reset_signals, ()))
        return steps

    def _prepare(self) -> clone.Image:
        argv, environment = self.program.argv, self._environment
        try:
            return clone.Image(candidates(argv[0], environment), argv, environment)
        except ValueError as error:
            raise OSError(errno.EINVAL, str(error)) from error

    def lend_oom_score(self) -> None:
        """Just before the fork: have the score that the child is to be born with. A failure is the child's."""
        if self.program.oom_score_adj is not None:
            try:
                self._oom_score = oom_score.lend(self.program.oom_score_adj)
            except OSError as error:
                self._steps.insert(0, ("set oom_score_adj", _fail, (error,)))

    def take_back_oom_score(self) -> None:
        """Just after the fork, in the parent."""
        if self._oom_score is not None:
            oom_score.take_back(self._oom_score)

    def run(self) -> Never:
        """In the child: exec, or _exit at the end whatever happens."""
        try:
            for step in self._steps:
                self._call = step[0]
                step[1](*step[2])
            if self.program.function is not None:
                os.close(self.report)
                _call(self.program.function, self._environment)
            self._call = "exec"
            image = self._prepare() if self._image is None else self._image
            image.execute()
        except (OSError, LcinitError) as error:
            os.write(self.report, report_of(self._call, error))
        finally:
            os._exit(EX_CANNOT_RUN)

    def _place_streams(self) -> None:
        """What it is to have, to the numbers that it is to have; nothing else is open but the report."""
        program = self.program
        if program.tty is not None:
            self._call = f"open the terminal {program.tty}"
            streams = (isolation.open_terminal(program.tty),) * 3
            self._call = "open streams"
        else:
            # O_NONBLOCK: a command that ran before in the guest root may have left a FIFO there
            stdin = program.stdin
            if stdin is None:
                stdin = os.open("/dev/null", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            streams = (stdin, program.stdout, program.stderr)
        pairs = [*zip(streams, (0, 1, 2), strict=True), *program.descriptors]
        self.report = place_descriptors(pairs, self.report)

    def _read_environment(self) -> None:
        for path in self.program.environment_files:
            self._call = f"read environment_file {path.removeprefix('-')}"
            self._environment.update(environments.read(path))

    def _become_account(self, keep: bool) -> None:
        account = self.program.account
        assert account is not None
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if account.user is not None:
            found = accounts.account(root, account.user)
            home = {"HOME": found.home or "/", "LOGNAME": found.name, "SHELL": found.shell or "/bin/sh"}
            for name, value in (*home.items(), ("USER", found.name)):
                self._environment.setdefault(name, value)
        user = 0 if account.user is None and account.group is None else account.user
        identity = accounts.identity(root, user, account.group, account.groups)
        os.close(root)
        if identity is not None:
            isolation.become(identity, keep)


def _fail(error: OSError) -> None:
    raise error


def _enter_cgroup(directory: int) -> None:
    procs = os.open("cgroup.procs", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
    os.write(procs, b"0")
    os.close(procs)


def _take_foreground() -> None:
    """Be the terminal's foreground process group, where there is a terminal of this session. SIGTTOU is blocked."""
    try:
        os.tcsetpgrp(0, os.getpgrp())
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EPERM, errno.EIO, errno.ENXIO):
            raise


def place_descriptors(pairs: Sequence[tuple[int, int]], report: int) -> int:
    """Each first number of `pairs` to the second, inheritable; `report`, which an exec closes, to one above them all.

    Every other descriptor is closed. Returns the number of `report`.
    """
    import fcntl

    above = max(target for _, target in pairs) + 1
    # first out of the way: a target may be another's source
    sources = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above + 1) if fd <= above else fd for fd, _ in pairs]
    if report <= above:
        report = fcntl.fcntl(report, fcntl.F_DUPFD_CLOEXEC, above + 1)
    for source, (_, target) in zip(sources, pairs, strict=True):
        os.dup2(source, target, inheritable=True)
    os.dup2(report, above, inheritable=False)
    targets = {target for _, target in pairs}
    for number in range(3, above):
        if number not in targets:
            close_range(number, number)
    close_range(above + 1)
    return above


def _call(function: Callable[[], int], environment: dict[str, str]) -> Never:
    """Run a function as if it were a program: its environment is the process's, its return the exit code."""
    os.environ.clear()
    os.environ.update(environment)
    call(function)


def call(function: Callable[[], int]) -> Never:
    """End with what a function returns as exit code."""
    import sys

    status = EX_SOFTWARE
    try:
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


def candidates(name: str, environment: dict[str, str]) -> list[str]:
    """Where execvp(3) would look for a program of this name."""
    if "/" in name:
        return [name]
    return [f"{directory or '.'}/{name}" for directory in environment.get("PATH", "/usr/bin:/bin").split(":")]


def execute(argv: tuple[str, ...], environment: dict[str, str]) -> Never:
    """execve(2) with a search of the environment's PATH as execvp(3) does, without its fallback to a shell.

    Raises OSError: ENOENT when nothing was found, else the first error that says more than that.
    """
    try:
        image = clone.Image(candidates(argv[0], environment), argv, environment)
    except ValueError as error:
        raise OSError(errno.EINVAL, str(error), argv[0]) from error
    image.execute()

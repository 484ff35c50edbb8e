"""The one way to start a program: fork, a clean slate, isolation, exec, and the truth about why one of them failed."""

from __future__ import annotations

import errno
import fcntl
import os
import struct

from lcinit.errors import EX_CANNOT_RUN, EX_NOT_FOUND, EX_SOFTWARE, CommandFailed, LcinitError
from lcinit.linux import prepared
from lcinit.linux.process import set_controlling_tty
from lcinit.linux.signals import reset_signals
from lcinit.supervisor import accounts, isolation
from lcinit.supervisor.program import Account as Account
from lcinit.supervisor.program import Identity as Identity
from lcinit.supervisor.program import Program as Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Never

    from lcinit.linux.prepared import Step

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
    image = None
    if not is_late(program) and program.function is None:
        try:
            image = image_of(program.argv, dict(program.environment))
        except OSError:
            pass  # the child fails in the same way, and reports it
    child = Child(program, report, within_cgroup=False, default_signals=False)
    try:
        if program.oom_score_adj is None:
            return _fork(child, image)
        from lcinit.supervisor import oom_score  # a boot without services has no use for it

        score = oom_score.Loan(program.oom_score_adj)
        try:
            return _fork(child, image, score.failure)
        finally:
            score.end()
    finally:
        child.forget()


def _fork(child: Child, image: prepared.Image | None, failed: OSError | None = None) -> int:
    pid = os.fork()
    if pid == 0:
        child.run(image, failed)
    return pid


def is_plain(program: Program) -> bool:
    """Whether all that its child does is system calls that are known before, and none that changes whose it is."""
    return not (
        program.function
        or program.identity
        or is_late(program)
        or program.session != "new"
        or program.terminal
        or program.tty is not None
        or program.oom_score_adj is not None
        or program.capabilities is not None
        or program.private_tmp
        or program.read_only_paths
    )


def is_late(program: Program) -> bool:
    """Whether only the child can know its environment."""
    return program.account is not None or bool(program.environment_files)


def image_of(argv: tuple[str, ...], environment: dict[str, str]) -> prepared.Image:
    """What is to be executed. Raises OSError."""
    return prepared.Image.of(candidates(argv[0], environment), argv, environment)


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
    """What there is between a fork and an exec, made before the fork, with all that can be known there.

    It does for any number of forks, as long as `moved` is empty. `within_cgroup`: the fork puts it there.
    `default_signals`: the parent ignores and handles none.
    """

    def __init__(self, program: Program, report: int, *, within_cgroup: bool, default_signals: bool) -> None:
        self.program = program
        self.report = report
        self.moved: list[int] = []  # descriptors of the parent's that are for this child alone
        self._environment = dict(program.environment)
        self.steps = self._order(within_cgroup, default_signals)

    def _order(self, within_cgroup: bool, default_signals: bool) -> list[Step]:
        """The cgroup first, for what follows counts; what takes privilege before there is less; the mask last, so that
        no signal ends it on the way.
        """
        program = self.program
        steps: list[Step] = []
        if program.cgroup is not None and not within_cgroup:
            steps.append(("enter its cgroup", _enter_cgroup, (program.cgroup,)))
        steps.append(("start", *(prepared.setsid() if program.session == "new" else prepared.setpgid())))
        lowest = self._place_descriptors(steps)
        if program.session == "group":
            steps.append(("open streams", _take_foreground, ()))
        if program.terminal or program.tty is not None:
            steps.append(("take the terminal", set_controlling_tty, (0, True)))
        steps += isolation.mounts(program)
        for path in program.environment_files:
            steps.append((f"read environment_file {path.removeprefix('-')}", self._read_environment, (path,)))
        steps += isolation.priorities(program)
        steps += isolation.bounding(program)
        keep = program.capabilities is not None
        if program.account is not None:
            steps.append(("change user", self._become_account, (keep,)))
        elif program.identity is not None:
            steps += isolation.becoming(program.identity, keep)
        steps += isolation.privileges(program)
        steps += isolation.place(program, lowest)
        steps.append(("reset signals", *(prepared.unblock_signals() if default_signals else (reset_signals, ()))))
        return steps

    def _place_descriptors(self, steps: list[Step]) -> int:
        """What it is to have, to the numbers that it is to have; nothing else is open but the report.

        Returns the lowest number that is free then.
        """
        program = self.program
        pairs = [*program.descriptors]
        if program.tty is None:
            pairs += [(program.stdout, 1), (program.stderr, 2)]
            if program.stdin is not None:
                pairs.append((program.stdin, 0))
        targets = [0, 1, 2, *(number for _, number in program.descriptors)]
        above = max(targets) + 1
        words = "open streams"
        for fd, number in pairs:
            # what stands where something is to be is moved out of the way first
            source = fd if fd >= above else self._move(fd, above)
            steps.append((words, *prepared.dup3(source, number)))
        if self.report < above:
            self.report = self._move(self.report, above)
        gaps = [(number, number) for number in range(3, above) if number not in targets]
        if self.report > above:
            gaps.append((above, self.report - 1))
        for first, last in gaps:
            steps.append((words, *prepared.close_range(first, last)))
        steps.append((words, *prepared.close_range(self.report + 1)))
        if program.tty is not None:
            steps.append((f"open the terminal {program.tty}", isolation.open_terminal, (program.tty,)))
        elif program.stdin is None:
            steps.append((words, *prepared.close_range(0, 0)))
            # O_NONBLOCK: a command that ran before in the guest root may have left a FIFO there
            steps.append((words, *prepared.open_file("/dev/null", os.O_RDONLY | os.O_NONBLOCK)))
        return next(number for number in range(3, above + 2) if number not in targets and number != self.report)

    def _move(self, fd: int, above: int) -> int:
        self.moved.append(fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, above))
        return self.moved[-1]

    def forget(self) -> None:
        """In the parent: it is not needed any more."""
        while self.moved:
            os.close(self.moved.pop())
        self.steps.clear()  # some are methods of this object: it goes by counting

    def run(self, image: prepared.Image | None, failed: OSError | None = None) -> Never:
        """In the child: exec, or _exit at the end whatever happens.

        `image` is None where its account and its files are still to be heard. `failed` is why the parent could not lend
        its score.
        """
        words = "set oom_score_adj"
        try:
            if failed is not None:
                raise failed
            for words, function, arguments in self.steps:
                prepared.perform(words, function, arguments)
            if self.program.function is not None:
                os.close(self.report)
                _call(self.program.function, self._environment)
            words = "exec"
            if image is None:
                image = image_of(self.program.argv, self._environment)
            image.execute()
        except (OSError, LcinitError) as error:
            os.write(self.report, report_of(words, error))
        finally:
            os._exit(EX_CANNOT_RUN)

    def _read_environment(self, path: str) -> None:
        from lcinit.supervisor import environments  # imported by the spawner, before it is in the guest

        self._environment.update(environments.read(path))

    def _become_account(self, keep: bool) -> None:
        account = self.program.account
        assert account is not None
        identity: Identity | None = None
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        if account.user is not None:
            found = accounts.account(root, account.user)
            identity = found.identity
            home = {"HOME": found.home or "/", "LOGNAME": found.name, "SHELL": found.shell or "/bin/sh"}
            for name, value in (*home.items(), ("USER", found.name)):
                self._environment.setdefault(name, value)
        if account.user is None or account.group is not None or account.groups:
            user = 0 if account.user is None and account.group is None else account.user
            identity = accounts.identity(root, user, account.group, account.groups)
        os.close(root)
        if identity is not None:
            for step in isolation.becoming(identity, keep):
                prepared.perform(*step)


def _fail(error: OSError) -> None:
    raise error


def _enter_cgroup(directory: int) -> None:
    try:
        procs = os.open("cgroup.procs", os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory)
        os.write(procs, b"0")
    except OSError as error:
        raise OSError(error.errno, error.strerror) from error  # the file's name says nothing
    os.close(procs)


def _take_foreground() -> None:
    """Be the terminal's foreground process group, where there is a terminal of this session. SIGTTOU is blocked."""
    try:
        os.tcsetpgrp(0, os.getpgrp())
    except OSError as error:
        if error.errno not in (errno.ENOTTY, errno.EPERM, errno.EIO, errno.ENXIO):
            raise


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
    image_of(argv, environment).execute()

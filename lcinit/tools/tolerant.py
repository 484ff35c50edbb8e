"""Commands that run although their file lacks the execute bit, and directories of such commands.

Media without Unix modes, and mounts with noexec, lose the execute bit; a script still says in its first line what runs
it (execve(2), "Interpreter scripts").
"""

from __future__ import annotations

import errno
import os
import signal
import stat

from lcinit.errors import EX_CANNOT_RUN, EX_NOT_FOUND, CommandFailed
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Never

    Inode = tuple[int, int]

FIRST_LINE = 4096  # bytes of a script that are read for its `#!` line
DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# what ends a run of several commands even when the one that runs now does not care
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
# job control stops and continues this process together with its child
_LEFT_ALONE = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU, signal.SIGCONT, signal.SIGKILL, signal.SIGSTOP}


class Step(Record):
    """One program to run: its file, and its argv with what was written as the first word."""

    file: str
    argv: tuple[str, ...]


class Commands(Record):
    """What a path means: one file, or all that its directory holds."""

    steps: tuple[Step, ...]
    directory: bool = False


def resolve(path: str, arguments: Sequence[str] = (), search: str = DEFAULT_PATH) -> Commands:
    """What `tolerant PATH ARG...` runs. A bare name is looked up in `search`, in the form of $PATH.

    Directories are taken in the order of their entries' bytes, entries that begin with a dot or end with ~ left out.
    Raises CommandFailed: 127 for what is not there, 126 for what cannot be run. Nothing has run by then.
    """
    name = path if "/" in path or path in (".", "..") else _find(path, search)
    status = _stat(name)
    if stat.S_ISDIR(status.st_mode):
        return Commands(steps=tuple(_walk(name, status, tuple(arguments), search, ())), directory=True)
    return Commands(steps=(_step(name, path, status, tuple(arguments), search),))


def run(path: str, arguments: Sequence[str] = ()) -> int:
    """Run it: a file in this process' place, the entries of a directory as children, one after the other.

    Returns the status of the first child that failed, 128 + N when signal N ended it, else 0. Signals that reach this
    process meanwhile are passed on to the child. Raises CommandFailed when a file cannot be run.
    """
    commands = resolve(path, arguments, os.environ.get("PATH", DEFAULT_PATH))
    if not commands.directory:
        _execute(commands.steps[0])
    waited_for = {int(number) for number in signal.valid_signals() - _LEFT_ALONE}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, waited_for)
    try:
        for step in commands.steps:
            status, ending = _run_child(step, waited_for, mask)
            if status or ending:
                return status or 128 + ending
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    return 0


def _run_child(step: Step, waited_for: set[int], mask: set[signal.Signals | int]) -> tuple[int, int]:
    """The child's status, and the signal that wants the whole run to end; 0 for none."""
    child = os.fork()
    if child == 0:
        try:
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            _execute(step)
        except CommandFailed as error:
            os.write(2, f"tolerant: {error}\n".encode(errors="surrogateescape"))
            os._exit(error.exit_code)
        finally:
            os._exit(EX_CANNOT_RUN)
    ending = 0
    while True:
        caught = signal.sigwaitinfo(waited_for)
        if caught.si_signo == signal.SIGCHLD:
            pid, status = os.waitpid(child, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                return (128 - code if code < 0 else code), ending
            continue
        if caught.si_signo in _ENDING:
            ending = caught.si_signo
        # what the terminal sends goes to its whole foreground group, and so to the child already
        if caught.si_code <= 0:
            os.kill(child, caught.si_signo)


def _execute(step: Step) -> Never:
    """Become the program. Python ignores two signals, and what is ignored stays so over an exec."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execv(step.file, step.argv)
    except OSError as error:
        why = error.strerror
        if error.errno == errno.ENOENT:
            why = "the interpreter that it names is not there"
        elif error.errno == errno.ENOEXEC:
            why = "it is neither a program nor begins with #!"
        raise CommandFailed(f"cannot run {step.file!r}: {why}", exit_code=EX_CANNOT_RUN) from error


def _walk(
    directory: str, status: os.stat_result, arguments: tuple[str, ...], search: str, above: tuple[Inode, ...]
) -> list[Step]:
    identity = (status.st_dev, status.st_ino)
    if identity in above:
        raise CommandFailed(f"cannot run {directory!r}: it lies in itself, through a link", exit_code=EX_CANNOT_RUN)
    try:
        names = sorted(os.listdir(directory), key=os.fsencode)
    except OSError as error:
        raise CommandFailed(f"cannot read {directory!r}: {error.strerror}", exit_code=EX_CANNOT_RUN) from error
    steps: list[Step] = []
    for name in names:
        if name.startswith(".") or name.endswith("~"):
            continue
        path = os.path.join(directory, name)
        entry = _stat(path)
        if stat.S_ISDIR(entry.st_mode):
            steps += _walk(path, entry, arguments, search, (*above, identity))
        else:
            steps.append(_step(path, path, entry, arguments, search))
    return steps


def _step(file: str, written: str, status: os.stat_result, arguments: tuple[str, ...], search: str) -> Step:
    if not stat.S_ISREG(status.st_mode):
        raise CommandFailed(f"cannot run {file!r}: it is neither a file nor a directory", exit_code=EX_CANNOT_RUN)
    if os.access(file, os.X_OK):
        return Step(file=file, argv=(written, *arguments))
    words = _interpreter(file)
    interpreter = words[0] if "/" in words[0] else _find(words[0], search)
    if not os.access(interpreter, os.X_OK):
        missing = "is not executable" if os.path.exists(interpreter) else "is not there"
        raise CommandFailed(f"cannot run {file!r}: its interpreter {interpreter!r} {missing}", exit_code=EX_CANNOT_RUN)
    return Step(file=interpreter, argv=(*words, file, *arguments))


def _interpreter(file: str) -> list[str]:
    """The words of the `#!` line; unlike the kernel, which takes all after the first blank for one word."""
    try:
        # a file that became a FIFO meanwhile must not make us wait
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            first = os.read(fd, FIRST_LINE)
        finally:
            os.close(fd)
    except OSError as error:
        raise CommandFailed(f"cannot read {file!r}: {error.strerror}", exit_code=EX_CANNOT_RUN) from error
    line, newline, _ = first.partition(b"\n")
    words = os.fsdecode(line[2:]).split() if line.startswith(b"#!") else []
    if not words or (not newline and len(first) == FIRST_LINE):
        raise CommandFailed(
            f"cannot run {file!r}: it is not executable and does not begin with #! and a program",
            hint="set its execute bit, or take it out of the directory",
            exit_code=EX_CANNOT_RUN,
        )
    return words


def _find(name: str, search: str) -> str:
    """A bare name in the directories of `search`: an executable file first, else a script without the bit."""
    tolerated = None
    for directory in search.split(":"):
        path = os.path.join(directory or ".", name)
        if not os.path.isfile(path):
            continue
        if os.access(path, os.X_OK):
            return path
        tolerated = tolerated or path
    if tolerated is None:
        raise CommandFailed(f"cannot run {name!r}: not found in PATH", exit_code=EX_NOT_FOUND)
    return tolerated


def _stat(path: str) -> os.stat_result:
    try:
        return os.stat(path)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise CommandFailed(f"cannot run {path!r}: {error.strerror}", exit_code=EX_NOT_FOUND) from error
    except OSError as error:
        raise CommandFailed(f"cannot run {path!r}: {error.strerror}", exit_code=EX_CANNOT_RUN) from error

"""Asks a guest's init for poweroff, halt or reboot in its own words (plan.inits), when it can hear them.

Everything of the guest may be hostile. Its files are reached through the handle of its root alone, without following
any link; what is no FIFO is never written, and all is done with the file-system ids of the guest's root, so that
nothing is done that it could not do itself. Nothing waits: a FIFO without a reader is tried again.
"""

from __future__ import annotations

import errno
import os
import stat

from lcinit import log
from lcinit.control.initctl import INIT_CMD_SETENV, Request, runlevel_request
from lcinit.control.stopping import listens
from lcinit.guest.asking import Asking
from lcinit.linux import credentials, files, process
from lcinit.linux.signals import signal_name, signal_number
from lcinit.plan.inits import INITS, PLAIN, recipes

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from typing import Literal, Protocol

    from lcinit.guest.asking import Act, Hearing
    from lcinit.plan.inits import Recipe

    Answer = Literal["sent", "held", "cannot", "deaf"]

    class Guest(Protocol):
        """One start of a guest, as PID 1 holds it; see guest.start."""

        pid: int
        pidfd: int
        root_fd: int
        owner: tuple[int, int]

        @property
        def init_kind(self) -> str:
            """Which init it is; see plan.inits."""


_STATUS_SIZE = 1 << 20  # bytes: more than any /proc/PID/status, where 65536 groups may stand
_MOST_CHILDREN = 64  # that are looked at, the oldest: of orphans it may have as many as it likes
_STAGE_1 = b"1\n"  # comm of runit's first stage, the script /etc/runit/1


class Asker:
    """Requests to one start of a guest, to be made when its init has been executed.

    Answers: "sent", everything that can be done was; "held", until the init can hear it; "cannot", it has no word for
    that or cannot be reached; "deaf", a program that no signal but SIGKILL reaches. After "held" the final answer comes
    through `report(word, answer, detail)`, from a timer of `loop`; `detail` says how it was asked or why not.
    """

    def __init__(
        self,
        guest: Guest,
        overrides: tuple[tuple[str, str], ...],
        loop: asyncio.AbstractEventLoop,
        report: Callable[[str, Answer, str], None],
    ) -> None:
        """`overrides` is `exec.stop`: request and name of a signal."""
        self._guest = guest
        self._loop = loop
        self._report = report
        self._recipes = recipes(guest.init_kind, overrides)
        init = INITS.get(guest.init_kind, PLAIN)
        self._late = init.late
        self._asking = Asking(
            self._recipes,
            blind=init.late or not init.catches,
            plain=guest.init_kind == PLAIN.kind,
            born=loop.time(),
        )
        self._timer: asyncio.TimerHandle | None = None
        self._fifo = -1
        self._answers: dict[str, tuple[Answer, str]] = {}

    def ask(self, word: str, now: float | None = None) -> tuple[Answer, str]:
        """Ask for poweroff, halt, reboot, or restart, which is reboot to the init: the answer and its detail.

        A word that was asked for already is not said again. `now` is the loop's time.
        """
        if word == "restart":
            word = "reboot" if "reboot" in self._recipes else "poweroff"
        if not self._asking.ask(word, self._loop.time() if now is None else now):
            return "cannot", f"{self._guest.init_kind} has no word for {word}"
        self._step()
        if self._asking.asked != word:
            return "held", "until the init can hear it"
        return self._answers[word]

    def close(self) -> None:
        """Ask no more: the guest has ended."""
        self._disarm()
        self._close_fifo()

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wake(self) -> None:
        self._timer = None
        acted = self._step()
        if acted is not None and acted.how != "again":
            self._report(acted.word, *self._answers[acted.word])

    def _step(self) -> Act | None:
        self._disarm()
        act = self._asking.step(self._loop.time(), self._hears)
        if act is not None:
            self._answers[act.word] = self._perform(act)
            self._close_fifo()
        due = self._asking.due
        if due is not None:
            self._timer = self._loop.call_at(due, self._wake)
        return act

    # whether the init hears

    def _hears(self, word: str) -> Hearing:
        recipe = self._recipes[word]
        if recipe.fifos:
            return self._open_fifo(recipe.fifos)
        if self._late or (recipe.signal is not None and not self._listens(signal_number(recipe.signal))):
            return "not-yet"
        if recipe.flags and self._in_first_stage():
            return "not-yet"
        return "yes"

    def _listens(self, number: int) -> bool:
        try:
            return listens(_read(f"/proc/{self._guest.pid}/status").decode("ascii", "replace"), number)
        except OSError as error:
            log.warning(f"cannot see what the guest's init listens to: {error.strerror}")
            return True  # better said too early than never

    def _in_first_stage(self) -> bool:
        """runit hears nothing in its first stage, at whose end the flags are reset; between two there is no child.

        A child that has not executed its stage yet still has the name of PID 1.
        """
        pid = self._guest.pid
        try:
            children = _read(f"/proc/{pid}/task/{pid}/children").split()[:_MOST_CHILDREN]
        except OSError:
            return False  # a kernel without CONFIG_PROC_CHILDREN
        try:
            own, *names = [_read(f"/proc/{each}/comm") for each in (pid, *map(int, children))]
        except OSError:
            return True  # one has just ended: look again
        return not names or own in names or _STAGE_1 in names

    def _open_fifo(self, paths: tuple[str, ...]) -> Hearing:
        """Open the first of `paths` that somebody reads: "never" if all of them are something else than a FIFO."""
        self._close_fifo()
        try:
            with _IdsOf(self._guest.owner):
                return self._first_open(paths)
        except OSError as error:
            log.warning(f"cannot write to the guest's FIFO as its root: {error.strerror}")
            return "never"

    def _first_open(self, paths: tuple[str, ...]) -> Hearing:
        hearing: Hearing = "never"
        for path in paths:
            try:
                self._fifo = _open_fifo(self._guest.root_fd, path)
            except OSError as error:
                # ENXIO: nobody reads it yet
                if error.errno in (errno.ENOENT, errno.ENXIO):
                    hearing = "not-yet"
            else:
                return "yes"
        return hearing

    def _close_fifo(self) -> None:
        if self._fifo >= 0:
            os.close(self._fifo)
            self._fifo = -1

    # asking

    def _perform(self, act: Act) -> tuple[Answer, str]:
        recipe = self._recipes[act.word]
        if act.how == "deaf":
            return "deaf", f"it has no handler for {recipe.signal}"
        if act.how == "again":
            return self._signal(recipe.signal, act)
        if act.how == "fall-back":
            return self._fall_back(recipe, act, f"nobody reads {' or '.join(recipe.fifos)}")
        try:
            for names, mode in recipe.flags:
                self._put_flag(names, mode)
            if recipe.fifos:
                return "sent", self._write(recipe)
        except OSError as error:
            return self._fall_back(recipe, act, f"{error.filename or recipe.fifos[0]}: {error.strerror}")
        return self._signal(recipe.signal, act)

    def _fall_back(self, recipe: Recipe, act: Act, why: str) -> tuple[Answer, str]:
        if recipe.fallback is None:
            return "cannot", why
        answer, detail = self._signal(recipe.fallback, act)
        return answer, f"{detail} ({why})"

    def _signal(self, name: str | None, act: Act) -> tuple[Answer, str]:
        assert name is not None, "a recipe without a FIFO has a signal"
        number = signal_number(name)
        try:
            process.pidfd_send_signal(self._guest.pidfd, number)
        except ProcessLookupError:
            return "sent", "it has ended"
        except OSError as error:
            return "cannot", f"{name}: {error.strerror}"
        return "sent", signal_name(number) + (", though it does not listen" if act.unheard else "")

    def _write(self, recipe: Recipe) -> str:
        """All in one write, which a pipe takes as a whole or not at all (pipe(7)). Raises OSError."""
        message = recipe.text.encode()
        if recipe.runlevel:
            variable = Request(cmd=INIT_CMD_SETENV, data=recipe.variable.encode()).pack() if recipe.variable else b""
            message = variable + runlevel_request(recipe.runlevel).pack()
        os.write(self._fifo, message)
        return f"runlevel {recipe.runlevel}" if recipe.runlevel else f"{recipe.text} on its FIFO"

    def _put_flag(self, names: tuple[str, ...], mode: int) -> None:
        """Give the flag its mode: the first name that is a regular file, or that can be made. Raises OSError."""
        failed: OSError | None = None
        with _IdsOf(self._guest.owner):
            for name in names:
                try:
                    put_flag(self._guest.root_fd, name, mode)
                except OSError as error:
                    failed = failed or error
                else:
                    return
        assert failed is not None
        raise failed


class _IdsOf:
    """The file-system ids of the guest's root while it lasts: what its mounts know, and no right that it has not."""

    def __init__(self, owner: tuple[int, int]) -> None:
        self._owner = owner

    def __enter__(self) -> None:
        self._before = os.geteuid(), os.getegid()
        credentials.setfsgid(self._owner[1])
        try:
            credentials.setfsuid(self._owner[0])
        except BaseException:
            credentials.setfsgid(self._before[1])
            raise

    def __exit__(self, *_: object) -> None:
        credentials.setfsuid(self._before[0])
        credentials.setfsgid(self._before[1])


def _open_fifo(root_fd: int, path: str) -> int:
    """A writing end. Raises OSError: ENXIO without a reader, EINVAL for what is no FIFO, ELOOP for a link."""
    handle = files.open_in_root(root_fd, path, os.O_PATH)
    try:
        if not stat.S_ISFIFO(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a FIFO", path)
        # through the handle: what was checked is what is opened
        return os.open(f"/proc/self/fd/{handle}", os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(handle)


def put_flag(root_fd: int, path: str, mode: int) -> None:
    """Give a regular file below `root_fd` these permission bits; make it, empty, if there is none.

    Nothing is opened but what is made here: the file may have no permission bits, and might be no file. Raises OSError:
    EINVAL for what is no regular file, ELOOP for a link.
    """
    try:
        handle = files.open_in_root(root_fd, path, os.O_PATH)
    except FileNotFoundError:
        os.close(files.open_in_root(root_fd, path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode))
        handle = files.open_in_root(root_fd, path, os.O_PATH)
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise OSError(errno.EINVAL, "not a regular file", path)
        os.chmod(f"/proc/self/fd/{handle}", mode)
    finally:
        os.close(handle)


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(fd, _STATUS_SIZE)
    finally:
        os.close(fd)

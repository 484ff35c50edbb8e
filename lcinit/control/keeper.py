"""The process that stays outside when PID 1 has been handed to the guest.

It owns /dev/initctl, relays the console and answers the guest's reboot(2).

It lives in the mount and user namespaces of the outside and in the PID namespace of the guest's PID 1, with which the
kernel ends it (pid_namespaces(7)). It has no file of the guest open but the FIFO it made and the pty's master, sleeps
without any timer while nothing happens, and imports next to nothing: it stays in memory as long as the guest does.

How it is started, with `ROOT` the directory that holds the package:

    python3 -I -S -c 'import sys; sys.path.insert(0, sys.argv.pop(1)); \\
        from lcinit.control.keeper import main; sys.exit(main(sys.argv[1:]))' ROOT OPTION...

and with argv[0] "@lcinit", which keeps systemd from killing it at shutdown (systemd.io, ROOT_STORAGE_DAEMONS).
"""

from __future__ import annotations

import os
import select
import sys
import time

from lcinit.control.fifo import GuardedFifo
from lcinit.control.initctl import INIT_CMD_SETENV, INIT_CMD_UNSETENV, FrameReader, InitVariables, Request, stop_word
from lcinit.control.keeper_options import USAGE, Options
from lcinit.control.relay import Relay, open_nonblocking
from lcinit.control.stopping import StopRequests, listens

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

    from lcinit.control.rebooting import RebootCalls
else:
    # the C half of `signal`: the other half imports enum, which would be 1 MiB more for as long as the guest runs
    import _signal as signal

EX_USAGE = 64

FIFO_READ = 64 * 1024  # a pipe's capacity: one read empties it
FIFO_PAUSE = 0.1  # seconds between two reads, and between two looks at the FIFO's name: what a flood can cost
STATUS_SIZE = 1 << 20  # bytes: more than any /proc/PID/status, where 65536 groups may stand
RETRY = 5.0  # seconds until a FIFO that could not be made is tried again
LOG_BURST, LOG_EVERY = 5, 10.0  # lines, and seconds until there is room for one more
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Log:
    """Lines to standard error that never block and never become many; what is left out is counted."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._room = float(LOG_BURST)
        self._last = clock()
        self._left_out = 0
        try:
            self._fd = open_nonblocking(2, os.O_WRONLY)
            self._end = "\r\n" if os.isatty(2) else "\n"
        except OSError:
            self._fd = -1

    def __call__(self, text: str) -> None:
        """Say one line, or count it where there were too many lately or nobody takes it."""
        now = self._clock()
        self._room = min(self._room + (now - self._last) / LOG_EVERY, LOG_BURST)
        self._last = now
        more = f" ({self._left_out} more left out)" if self._left_out else ""
        if self._room >= 1 and self._fd >= 0:
            try:
                os.write(self._fd, f"lcinit: {text}{more}{self._end}".encode("ascii", "backslashreplace"))
            except OSError:
                pass
            else:
                self._room -= 1
                self._left_out = 0
                return
        self._left_out += 1


class Keeper:
    """The loop: what became ready, what fell due, and never an end of its own."""

    def __init__(self, options: Options, clock: Callable[[], float] = time.monotonic) -> None:
        self._options = options
        self._clock = clock
        self._log = Log(clock)
        self._poll = select.epoll()
        self._variables = InitVariables()
        self._frames = FrameReader()
        self._stop = StopRequests(options.signals, repeat=options.repeat)
        self._started = options.started < 0
        self._fifo: GuardedFifo | None = None
        self._fifo_registered = -1
        self._rearm_at: float | None = None
        self._look_at: float | None = None
        self._looked_at = clock() - FIFO_PAUSE
        self._relay: Relay | None = None
        self._relay_fds: tuple[int, ...] = ()
        self._more = False
        self._ended = False
        self._pidfd = -1
        self._signals = _signal_pipe(_ENDING if options.foreground else ())
        self._poll.register(self._signals, select.EPOLLIN)
        if options.pid != 1:
            self._pidfd = os.pidfd_open(options.pid)
            self._poll.register(self._pidfd, select.EPOLLIN)
        if options.started >= 0:
            self._poll.register(options.started, select.EPOLLIN)
        if options.directory >= 0:
            self._fifo = GuardedFifo(options.directory, options.owner, options.name)
            self._look_at_fifo(clock())
        if options.console >= 0:
            self._relay = Relay(options.console, 0, 1)
            self._relay_fds = self._relay.register(self._poll)
            self._more = True
        self._reboot_calls: RebootCalls | None = None
        if options.reboot_calls >= 0:
            from lcinit.control.rebooting import RebootCalls  # with ctypes, for guests that need it

            self._reboot_calls = RebootCalls(
                options.reboot_calls, options.user_namespace, machine=options.machine, say=self._log
            )
            self._poll.register(options.reboot_calls, select.EPOLLIN)

    def run(self) -> int:
        """Work until the init that is kept has ended; its PID namespace's end is SIGKILL."""
        while not self._ended:
            try:
                self._turn()
            except Exception as error:  # nobody would start another keeper
                self._log(f"keeper: unexpected {type(error).__name__}: {error}")
                time.sleep(1)
        if self._fifo is not None:
            self._fifo.remove()
        return 0

    def _turn(self) -> None:
        now = self._clock()
        due = [t for t in (self._stop_due(), self._rearm_at, self._look_at, self._relay_due()) if t is not None]
        timeout = 0 if self._more else max(0.0, min(due) - now) if due else None
        events = self._poll.poll(timeout)
        now = self._clock()
        for fd, event in events:
            self._event(fd, event, now)
        if self._rearm_at is not None and now >= self._rearm_at:
            self._rearm_at = None
            self._arm_fifo()
        if self._look_at is not None and now >= self._look_at:
            self._look_at_fifo(now)
        self._step_stop(now)
        if self._relay is not None:
            self._more = self._relay.pump(now)

    def _event(self, fd: int, event: int, now: float) -> None:
        if fd == self._signals:
            caught = os.read(fd, 512)
            if self._relay is not None and signal.SIGWINCH in caught:
                self._relay.copy_window_size()
            if self._fifo is not None and (signal.SIGIO in caught or signal.SIGUSR1 in caught):
                self._look_at = max(now, self._looked_at + FIFO_PAUSE)
            self._ended |= self._options.foreground and any(number in caught for number in _ENDING)
        elif fd == self._options.started:
            self._poll.unregister(fd)
            os.close(fd)
            self._started = True
        elif fd == self._pidfd:
            self._ended = True
        elif fd == self._fifo_registered:
            self._read_fifo(now)
        elif self._reboot_calls is not None and fd == self._options.reboot_calls:
            if event & select.EPOLLIN:
                self._reboot_calls.serve()
            else:
                self._poll.unregister(fd)  # nobody is left who could call
        elif fd in self._relay_fds and self._relay is not None:
            self._relay.ready(fd, event)

    # the FIFO

    def _look_at_fifo(self, now: float) -> None:
        """See that the FIFO is ours, and be told of the next change. The watch comes first: no change slips between."""
        assert self._fifo is not None
        self._look_at, self._looked_at = None, now
        if not self._fifo.watch():
            self._log("keeper: this kernel cannot tell when /dev/initctl is replaced")
        before = self._fifo.remade
        try:
            self._fifo.ensure()
        except OSError as error:
            self._log(f"keeper: cannot make {self._options.name}: {error.strerror or error}; trying again")
            self._look_at = now + RETRY
        if self._fifo.remade != before or self._fifo.fd < 0:
            # closing the old one has taken it out of the epoll set
            self._fifo_registered = self._fifo.fd
            self._frames = FrameReader()
            self._rearm_at = None
            if self._fifo_registered >= 0:
                self._poll.register(self._fifo_registered, select.EPOLLIN | select.EPOLLONESHOT)
            if before:
                self._log(f"keeper: {self._options.name} was replaced; made it again")

    def _arm_fifo(self) -> None:
        if self._fifo_registered >= 0:
            self._poll.modify(self._fifo_registered, select.EPOLLIN | select.EPOLLONESHOT)

    def _read_fifo(self, now: float) -> None:
        """One read, then a pause: writers that flood wait for the pipe, not the other way round."""
        self._rearm_at = now + FIFO_PAUSE
        try:
            received = os.read(self._fifo_registered, FIFO_READ)
        except BlockingIOError:
            return
        for request in self._frames.feed(received):
            self._take(request, now)

    def _take(self, request: Request, now: float) -> None:
        if request.cmd in (INIT_CMD_SETENV, INIT_CMD_UNSETENV):
            self._variables.apply(request)
            return
        word = stop_word(request, self._variables)
        if word is None:
            self._log(f"keeper: request {request.cmd}, runlevel {request.level}: not supported in a handed-off guest")
        elif not self._stop.ask(word, now):
            self._log(f"keeper: {word} was asked for, but this guest's init has no signal for it")

    # the signal to PID 1

    def _stop_due(self) -> float | None:
        return self._stop.due if self._started else None

    def _step_stop(self, now: float) -> None:
        if not self._started:
            return
        word = self._stop.word
        number = self._stop.step(now, self._listens)
        if number is None:
            return
        if self._stop.unheard:
            self._log(
                f"keeper: PID {self._options.pid} does not listen to signal {number} ({word}); sent it all the same"
            )
        try:
            if self._pidfd >= 0:
                signal.pidfd_send_signal(self._pidfd, number)
            else:
                os.kill(1, number)
        except OSError as error:
            self._log(f"keeper: cannot send signal {number} for {word}: {error.strerror}")

    def _listens(self, number: int) -> bool:
        try:
            fd = os.open(f"/proc/{self._options.pid}/status", os.O_RDONLY | os.O_CLOEXEC)
            try:
                return listens(os.read(fd, STATUS_SIZE).decode("ascii", "replace"), number)
            finally:
                os.close(fd)
        except OSError as error:
            self._log(f"keeper: cannot see what PID {self._options.pid} listens to: {error.strerror}")
            return True  # better sent too early than never

    def _relay_due(self) -> float | None:
        return None if self._relay is None else self._relay.due


def _signal_pipe(ending: tuple[int, ...]) -> int:
    """Have the signals that mean something come through a pipe and the others do nothing; its reading end."""
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    for number in (
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGPIPE,
        signal.SIGTSTP,
        signal.SIGTTIN,
        signal.SIGTTOU,
        signal.SIGUSR2,
        signal.SIGALRM,
    ):
        signal.signal(number, signal.SIG_IGN)
    for meant in (signal.SIGWINCH, signal.SIGIO, signal.SIGUSR1, *ending):
        signal.signal(meant, lambda *_: None)
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return reading


def _leave_the_rest(kept: set[int]) -> None:
    """Close every other descriptor, and pin no directory and no mount."""
    low = 3
    for fd in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        if fd >= low:
            os.closerange(low, fd)
            low = fd + 1
    os.chdir("/")
    os.umask(0o077)


def main(arguments: list[str]) -> int:
    """Be the keeper; returns an exit code when that cannot be or its init has ended."""
    try:
        options = Options(arguments)
    except ValueError as error:
        os.write(2, f"lcinit: keeper: {error}\n{USAGE}".encode())
        return EX_USAGE
    _leave_the_rest(options.descriptors)
    try:
        with open("/proc/self/comm", "w") as comm:
            comm.write("lcinit-keeper")
    except OSError:
        pass  # the name in ps(1), no more
    keeper = Keeper(options)
    if options.ready >= 0:
        os.write(options.ready, b"1")
        os.close(options.ready)
    return keeper.run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The caller's side of a command in a guest: its terminal or pipes, its signals, and how it all ended.

With a terminal the caller's own is raw: every key, ctrl-C and ctrl-Z among them, goes to the guest's terminal, whose
line discipline makes signals of it for the guest's foreground job. Without one signals are passed on to the command.
"""

from __future__ import annotations

import os
import termios
import time

from lcinit import log
from lcinit.control.relay import make_raw
from lcinit.errors import SystemFailure
from lcinit.guest.enter import ENDING, Entered, enter
from lcinit.guest.flow import REST, Flow, KeyFlow, Stream, TerminalFlow, wait
from lcinit.linux import process, signals
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.guest.order import Order
    from lcinit.guest.streams import Outer
    from lcinit.guest.target import Target

_GRACE = 2.0  # seconds that a command has for its end after its terminal hung up
_TERMINAL_HOLDS = 256 * 1024  # more than the buffers of a pty (tty_buffer.c) hold
_HANDLED = (*ENDING, signals.SIGWINCH, signals.SIGTSTP, signals.SIGCONT)


class End(Record):
    """How a session ended: the exit code for the caller, and whether the guest ended with the command in it."""

    code: int
    guest_ended: bool = False


class Terminal:
    """The caller's terminal: made raw, and given back as it was. One that has hung up cannot be given back."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self.attributes = termios.tcgetattr(fd)

    def make_raw(self) -> None:
        """Pass every byte through."""
        try:
            make_raw(self._fd)
        except (OSError, termios.error):
            pass

    def restore(self) -> None:
        """As it was before."""
        mask = signals.set_mask(signals.get_mask() | signals.mask_of([signals.SIGTTOU]))
        try:
            termios.tcsetattr(self._fd, termios.TCSANOW, self.attributes)
        except (OSError, termios.error):
            pass
        finally:
            signals.set_mask(mask)

    def copy_settings(self, master: int) -> None:
        """Give the guest's terminal this one's editing keys and size."""
        try:
            termios.tcsetattr(master, termios.TCSANOW, self.attributes)
        except (OSError, termios.error):
            pass  # the guest's terminal keeps the kernel's
        self.copy_size(master)

    def copy_size(self, master: int) -> None:
        """Give the guest's terminal this one's size; the kernel tells the guest's job if it has changed."""
        try:
            process.set_window_size(master, *process.get_window_size(self._fd))
        except OSError:
            pass  # hung up: there is no size any more


def run(target: Target, order: Order) -> End:
    """Run a command in the guest on this process' standard streams, of which 0-2 must be open.

    Raises LcinitError when it cannot be started.
    """
    if target.is_filtered():
        log.warning("the guest's init runs under a seccomp filter, and this command does not: filters cannot be copied")
    with_terminal = os.isatty(0) and os.isatty(1)
    separate = not os.isatty(2)
    order = order.replace(terminal=with_terminal, separate_errors=separate)
    mask = signals.set_mask(signals.get_mask() | signals.mask_of(_HANDLED))
    interrupts = signals.SignalFd(_HANDLED)
    try:
        terminal = Terminal(0) if with_terminal else None
        prepare = _leave_as_they_are if terminal is None else lambda outer: terminal.copy_settings(outer.master)
        entered = enter(target, order, interrupts, prepare)
        try:
            code = _attended(entered, terminal, interrupts)
        finally:
            entered.close()
    finally:
        interrupts.close()
        signals.set_mask(mask)
    if code is None or code == 128 + signals.SIGKILL:
        guest_ended = target.has_ended(within=_GRACE if code is None else REST)
        return End(code=128 + signals.SIGKILL, guest_ended=guest_ended)
    return End(code=code)


def _leave_as_they_are(_outer: Outer) -> None:
    """Pipes have no settings."""


def _attended(entered: Entered, terminal: Terminal | None, interrupts: signals.SignalFd) -> int | None:
    session = _Session(entered, terminal, interrupts)
    try:
        return session.serve()
    except OSError as error:
        raise SystemFailure.from_os_error("relay the command's streams", error) from error
    finally:
        session.close()


class _Session:
    def __init__(self, entered: Entered, terminal: Terminal | None, interrupts: signals.SignalFd) -> None:
        self.entered = entered
        self.terminal = terminal
        self.outer = entered.outer
        self.hung_up: tuple[float, int] | None = None  # when to wait no longer, and the exit code then
        self.ending = False
        self.asked: set[int] = set()
        self.signals = interrupts
        for fd in self.outer.descriptors():
            os.set_blocking(fd, False)
        self.streams = {"stdin": Stream(0, os.O_RDONLY), "stdout": Stream(1, os.O_WRONLY)}
        self.flows: dict[str, Flow] = {}
        if terminal is None:
            self.flows["stdin"] = Flow(self.streams["stdin"].fd, self.outer.stdin)
            self.flows["stdout"] = Flow(self.outer.stdout, self.streams["stdout"].fd)
        else:
            self.flows["stdin"] = KeyFlow(self.streams["stdin"].fd, self.outer.master)
            self.flows["stdout"] = TerminalFlow(self.outer.master, self.streams["stdout"].fd)
            terminal.make_raw()
        if self.outer.stderr >= 0:
            self.streams["stderr"] = Stream(2, os.O_WRONLY)
            self.flows["stderr"] = Flow(self.outer.stderr, self.streams["stderr"].fd)

    def close(self) -> None:
        if self.terminal is not None:
            self.terminal.restore()
        for stream in self.streams.values():
            stream.close()

    def serve(self) -> int | None:
        """Until the command has ended, or was left behind; the exit code, None if it was never told."""
        while True:
            ready = self._wait()
            for flow in list(self.flows.values()):
                flow.step(ready)
                if isinstance(flow, KeyFlow) and flow.escaped:
                    self._hang_up(128 + signals.SIGHUP)
                    break
            if self.signals.fileno() in ready:
                for signal in self.signals.read():
                    self._signalled(signal.signo)
            if not self.ending and self.entered.fileno() in ready and self.entered.ended():
                self._begin_to_end()
            self._see_to_ended_flows()
            if self.ending and not self.flows:
                return self._code()
            if self.hung_up is not None and time.monotonic() >= self.hung_up[0]:
                return self.hung_up[1]

    def _code(self) -> int | None:
        if self.hung_up is not None:
            return self.hung_up[1]
        status = self.entered.status
        return 128 - status if status is not None and status < 0 else status

    def _wait(self) -> dict[int, int]:
        also = [self.signals.fileno()] if self.ending else [self.signals.fileno(), self.entered.fileno()]
        timeout = None if self.hung_up is None else max(0, self.hung_up[0] - time.monotonic())
        return wait(self.flows.values(), also, timeout)

    def _see_to_ended_flows(self) -> None:
        """Pass on that a stream has ended, or that nobody reads it any more."""
        for name, flow in list(self.flows.items()):
            if not flow.ended:
                continue
            del self.flows[name]
            if self.terminal is not None and name != "stderr":
                if not self.ending:
                    self._hang_up(128 + signals.SIGHUP)
                continue
            self.outer.close_one(name)
            if flow.broken:
                self.streams[name].abandon()

    def _signalled(self, number: int) -> None:
        if number == signals.SIGTSTP:
            if self.terminal is not None:
                self.terminal.restore()
            os.kill(os.getpid(), signals.SIGSTOP)
        if number in (signals.SIGTSTP, signals.SIGCONT, signals.SIGWINCH):
            if self.terminal is not None and self.outer.master >= 0:
                self.terminal.copy_size(self.outer.master)
                self.terminal.make_raw()
        elif self.terminal is not None or self.ending or number in self.asked:
            self._hang_up(128 + number)
        else:
            self.asked.add(number)
            self.entered.signal(number)

    def _begin_to_end(self) -> None:
        """The command has ended: what it wrote still comes through, what its orphans write from now on does not."""
        self.ending = True
        self.flows.pop("stdin", None)
        for flow in self.flows.values():
            flow.drain(_TERMINAL_HOLDS if isinstance(flow, TerminalFlow) else None)

    def _hang_up(self, code: int) -> None:
        """Close every stream: the kernel sends SIGHUP to the job of a terminal that is closed (tty_io.c)."""
        if self.hung_up is None:
            self.hung_up = time.monotonic() + _GRACE, code
        self.flows.clear()
        self.outer.close()
        self.entered.signal(signals.SIGHUP)

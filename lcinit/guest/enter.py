"""Entering a guest: a command in its namespaces, cgroup and limits, without lending it anything of the caller's.

Three processes take part. The *caller* keeps its terminal and never leaves the outside. The *middle*, its child, lets
go of all that is the caller's, enters, and is seen by nobody in the guest: it stays in the outer PID namespace, because
setns(2) with CLONE_NEWPID is for children only. It makes the *inner* process, which the guest can see from then on,
when nothing is left to do but to start a session and to exec. Until that exec the inner process is not dumpable, which
keeps out everyone without CAP_SYS_PTRACE over the namespace that the interpreter was started in (ptrace(2)).

The middle waits for the inner process. The caller may be stopped by job control; a dead process that nobody reaps
would hold up the end of the guest's PID namespace (pid_namespaces(7)) for as long.
"""

from __future__ import annotations

import errno
import os
import select
import socket

from lcinit.errors import SystemFailure
from lcinit.guest.membership import Memberships
from lcinit.guest.middle import Middle
from lcinit.guest.order import (
    ENDED,
    ENDED_FORM,
    FAILED,
    FAILED_HEAD,
    GO,
    LARGEST,
    RUNNING,
    SIGNAL,
    SIGNAL_FORM,
    STREAMS,
    Order,
)
from lcinit.guest.stillness import stillness
from lcinit.guest.streams import Outer
from lcinit.linux import signals
from lcinit.supervisor.dumping import forbid_dumping

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from lcinit.guest.target import Target

ENDING = (signals.SIGHUP, signals.SIGINT, signals.SIGTERM, signals.SIGQUIT)


class Entered:
    """A command that runs in the guest: its streams' outer ends, and the middle process that waits for it."""

    def __init__(self, channel: socket.socket, middle: int) -> None:
        self.channel = channel
        self.middle = middle
        self.outer = Outer()
        self._status: int | None = None

    def fileno(self) -> int:
        """Readable when `ended` has something to learn."""
        return self.channel.fileno()

    def await_start(self, interrupts: signals.SignalFd, prepare: Callable[[Outer], object]) -> None:
        """Return once the command's own program runs. Raises LcinitError with what kept it from that."""
        while True:
            ready, _, _ = select.select([self.channel.fileno(), interrupts.fileno()], [], [])
            if interrupts.fileno() in ready:
                self._interrupted(interrupts)
            message, descriptors, _, _ = socket.recv_fds(
                self.channel, LARGEST, len(Outer.names), socket.MSG_CMSG_CLOEXEC
            )
            kind = message[:1]
            if kind == STREAMS:
                self.outer = Outer.of(message[1:], descriptors)
                prepare(self.outer)
                self.channel.send(GO, socket.MSG_NOSIGNAL)
            elif kind == RUNNING:
                return
            elif kind == FAILED:
                raise _failure(message)
            else:
                raise SystemFailure("the guest ended while it was entered")

    def _interrupted(self, interrupts: signals.SignalFd) -> None:
        for each in interrupts.read():
            if each.signo in ENDING:
                text = f"{signals.signal_name(each.signo)} came before the command ran"
                raise SystemFailure(text, exit_code=128 + each.signo)

    def ended(self) -> bool:
        """Take a message of the middle; whether the command has ended, or can no longer be waited for.

        Raises SystemFailure for what kept the middle from waiting.
        """
        try:
            message = self.channel.recv(LARGEST, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except ConnectionResetError:
            message = b""
        if message[:1] == FAILED:
            raise _failure(message)
        if message[:1] == ENDED:
            self._status = ENDED_FORM.unpack(message)[1]
        return True

    @property
    def status(self) -> int | None:
        """The exit code, minus the signal's number when one ended it; None if it was ended together with the guest."""
        return None if self._status is None else os.waitstatus_to_exitcode(self._status)

    def signal(self, number: int) -> None:
        """Have the middle signal the command's process group."""
        try:
            self.channel.send(SIGNAL_FORM.pack(SIGNAL, number), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        except OSError as error:
            if error.errno not in (errno.EPIPE, errno.ECONNRESET, errno.EAGAIN, errno.ENOTCONN):
                raise

    def close(self) -> None:
        """Hang up: close the streams, reap the middle if it has ended. The command may go on."""
        self.outer.close()
        self.channel.close()
        os.waitpid(self.middle, os.WNOHANG)


def _failure(message: bytes) -> SystemFailure:
    """What the middle says of it."""
    _, code = FAILED_HEAD.unpack_from(message)
    return SystemFailure(message[FAILED_HEAD.size :].decode("utf-8", "replace"), exit_code=code)


def enter(target: Target, order: Order, interrupts: signals.SignalFd, prepare: Callable[[Outer], object]) -> Entered:
    """Run a command in the namespaces of a held process; returns when its program has been executed.

    The caller must be single-threaded; `interrupts` reads the signals that make it give up before. `prepare` gets the
    streams' outer ends before the command can use them. Raises LcinitError: 126 and 127 for a command that cannot be
    run or is not there, 77 for what may not be entered, 78 for an unknown user.
    """
    forbid_dumping()
    still = stillness(target)
    memberships = Memberships(target.cgroups, running=still is None)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        null = os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC)
        try:
            middle = os.fork()
            if middle == 0:
                Middle(target, order, memberships, still, theirs, null).run()
        finally:
            os.close(null)
    except BaseException:
        ours.close()
        if still is not None:
            still.close()
        raise
    finally:
        memberships.close()
        theirs.close()
    entered = Entered(ours, middle)
    try:
        entered.await_start(interrupts, prepare)
    except BaseException:
        if still is not None:
            still.release()  # the middle may have been killed before it could
        entered.close()
        raise
    finally:
        if still is not None:
            still.close()
    return entered

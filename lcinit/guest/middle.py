"""The process between the caller and the guest, from its fork to its end: see `enter`."""

from __future__ import annotations

import errno
import os
import resource
import select
import socket
import time

from lcinit.boot import guard
from lcinit.boot.keyring import take_new_session_keyring
from lcinit.errors import EX_CANNOT_RUN, EX_NOT_FOUND, EX_OSERR, LcinitError, SystemFailure
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
from lcinit.guest.stillness import PATIENCE, Stillness
from lcinit.guest.streams import Streams
from lcinit.linux import capabilities, namespaces, process, signals
from lcinit.plan.guest import DEFAULT_PATH
from lcinit.supervisor import accounts
from lcinit.supervisor.dumping import forbid_dumping
from lcinit.supervisor.spawn import execute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Never

    from lcinit.guest.membership import Memberships
    from lcinit.guest.target import Target


class Middle:
    """The process between, from fork to _exit."""

    def __init__(
        self,
        target: Target,
        order: Order,
        memberships: Memberships,
        still: Stillness | None,
        channel: socket.socket,
        null: int,
    ) -> None:
        self.target = target
        self.order = order
        self.memberships = memberships
        self.still = still
        self.channel = channel
        self.null = null

    def run(self) -> Never:
        """All of it; failures go to the caller."""
        try:
            signals.block_all()
            self._leave_the_caller()
            self._enter()
            self._serve(*self._start())
        except LcinitError as error:
            self._fail(str(error), error.exit_code)
        except OSError as error:
            failure = SystemFailure.from_os_error("enter the guest", error)
            self._fail(failure.message, failure.exit_code)
        except BaseException as error:
            self._fail(f"unexpected {type(error).__name__}: {error}", EX_OSERR)
        finally:
            os._exit(0)

    def _fail(self, text: str, code: int) -> None:
        self.channel.send(
            FAILED_HEAD.pack(FAILED, code) + text.encode("utf-8", "replace")[: LARGEST - FAILED_HEAD.size]
        )

    def _leave_the_caller(self) -> None:
        """Session, streams, descriptors and groups: what a look into the inner process must not find."""
        os.setsid()
        for fd in (0, 1, 2):
            os.dup2(self.null, fd, inheritable=True)
        held = {self.channel.fileno(), self.null, self.target.pidfd, self.target.root}
        held |= set(self.memberships.descriptors())
        if self.still is not None:
            held.update(self.still.descriptors())
        last = 2
        for fd in sorted(held):
            if fd > last + 1:
                process.close_range(last + 1, fd - 1)
            last = fd
        process.close_range(last + 1)
        os.setgroups([])
        self._set_oom_score_adj()
        self._raise_limits()
        if self.still is None:
            self.memberships.join()

    def _set_oom_score_adj(self) -> None:
        try:
            with open("/proc/self/oom_score_adj", "w", encoding="utf-8") as file:
                file.write(str(self.target.oom_score_adj))
        except PermissionError:
            pass  # below the caller's own, and the caller has no CAP_SYS_RESOURCE

    def _raise_limits(self) -> None:
        """Make room below the hard limits, as far as the outer root may. The inner process lowers them."""
        for number, (soft, hard) in self.target.limits.items():
            own_soft, own_hard = resource.getrlimit(number)
            if _above(hard, own_hard):
                try:
                    resource.setrlimit(number, (own_soft, hard))
                except ValueError:  # how this module says EPERM: the caller has no CAP_SYS_RESOURCE
                    self.target.limits[number] = (own_hard if _above(soft, own_hard) else soft, own_hard)

    def _enter(self) -> None:
        """One setns(2) for all: the kernel takes the user namespace first, and the PID namespace is for the child."""
        guard.close()
        try:
            namespaces.setns(self.target.pidfd, self.target.flags)
        except ProcessLookupError as error:
            raise SystemFailure("the guest ended while it was entered") from error
        os.close(self.target.pidfd)
        self._enter_root()
        os.chdir("/")
        self._become(0, 0, (), "root")

    def _enter_root(self) -> None:
        """setns(2) leads to the root of the mount namespace; the process may have had another one since (chroot(2))."""
        if not os.path.samestat(os.fstat(self.target.root), os.stat("/")):
            os.fchdir(self.target.root)
            os.chroot(".")
        os.close(self.target.root)

    def _become(self, uid: int, gid: int, groups: tuple[int, ...], name: str) -> None:
        try:
            if groups:
                self._set_groups(groups)
            os.setresgid(gid, gid, gid)
            os.setresuid(uid, uid, uid)
        except OSError as error:
            hint = "its id map has no such id" if error.errno == errno.EINVAL else ""
            raise SystemFailure.from_os_error(f"become {name} ({uid}:{gid}) in the guest", error, hint=hint) from error
        forbid_dumping()

    def _set_groups(self, groups: tuple[int, ...]) -> None:
        try:
            os.setgroups(groups)
        except PermissionError:
            pass  # denied for the whole namespace (user_namespaces(7), setgroups): there are none then

    def _start(self) -> tuple[int, int]:
        """The inner process' PID and pidfd, once it has executed the command."""
        root = os.open("/", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        account = accounts.account(root, self.order.user)
        streams = Streams(self.order.terminal, self.order.separate_errors)
        streams.open_terminal(root, account.identity.uid)
        os.close(root)
        bounding = self.target.bounding
        capabilities.drop_bounding(number for number in range(64) if not bounding >> number & 1)
        capabilities.clear_ambient()
        self._become(account.identity.uid, account.identity.gid, account.identity.groups, account.name)
        _narrow_capabilities(bounding)
        if self.target.no_new_privileges:
            process.set_no_new_privs()
        take_new_session_keyring()
        os.umask(0o022)
        streams.open_pipes()
        socket.send_fds(self.channel, [STREAMS + streams.outer.word()], streams.outer.descriptors())
        streams.outer.close()
        streams.place()
        if self.channel.recv(LARGEST) != GO:
            os._exit(0)  # the caller has gone
        argv, environment = self._program(account)
        reader, writer = os.pipe2(os.O_CLOEXEC)
        if self.still is None:
            pid, pidfd = self._fork(argv, environment, writer, streams.terminal)
        else:
            pid, pidfd = self._fork_held(self.still, argv, environment, writer, streams.terminal)
        os.close(writer)
        self.memberships.close()
        for fd in (0, 1, 2):
            os.dup2(self.null, fd, inheritable=True)
        report = os.read(reader, 4)
        os.close(reader)
        if report:
            os.waitpid(pid, 0)
            raise _cannot_run(argv[0], int.from_bytes(report, "little"))
        self.channel.send(RUNNING)
        return pid, pidfd

    def _fork(self, argv: tuple[str, ...], environment: dict[str, str], report: int, terminal: bool) -> tuple[int, int]:
        pid, pidfd = namespaces.clone3(namespaces.CLONE_PIDFD)
        if pid == 0:
            self._inner(argv, environment, report, terminal)
        return pid, pidfd

    def _fork_held(
        self, still: Stillness, argv: tuple[str, ...], environment: dict[str, str], report: int, terminal: bool
    ) -> tuple[int, int]:
        """The same while the guest stands still, until the program has been executed.

        In the guest's cgroup the inner process would stand still too. It enters that when it is stopped by the exec,
        before the program's first instruction, so that nothing can be started outside of it.
        """
        still.hold()
        try:
            pid, pidfd = self._fork(argv, environment, report, terminal)
            if _is_executed(pid):
                self.memberships.join(pid)
                process.ptrace_detach(pid)
        finally:
            still.release()
        self.memberships.join()
        return pid, pidfd

    def _program(self, account: accounts.Account) -> tuple[tuple[str, ...], dict[str, str]]:
        """The argv, and an environment of which the guest's processes have no part."""
        shell = account.shell if account.shell.startswith("/") and "\0" not in account.shell else "/bin/sh"
        home = account.home if account.home.startswith("/") and "\0" not in account.home else "/"
        environment = {"PATH": DEFAULT_PATH, "HOME": home, "SHELL": shell, "LANG": "C.UTF-8"}
        environment |= {"USER": account.name, "LOGNAME": account.name}
        return self.order.argv or (shell, "-l"), {**environment, **dict(self.order.environment)}

    def _inner(self, argv: tuple[str, ...], environment: dict[str, str], report: int, terminal: bool) -> Never:
        """The guest sees this process: nothing is done here that could have been done before."""
        try:
            if self.still is not None:
                process.ptrace_traceme()
            os.setsid()
            process.close_range(3, report - 1)
            process.close_range(report + 1)
            if terminal:
                process.set_controlling_tty(0)
            for number, limit in self.target.limits.items():
                resource.setrlimit(number, limit)
            signals.reset_signals()
            execute(argv, environment)
        except OSError as error:
            os.write(report, (error.errno or errno.EIO).to_bytes(4, "little"))
        finally:
            os._exit(EX_CANNOT_RUN)

    def _serve(self, pid: int, pidfd: int) -> None:
        """Wait for the inner process and tell how it ended; pass signals on; hang up when the caller has gone."""
        poll = select.poll()
        poll.register(self.channel, select.POLLIN)
        poll.register(pidfd, select.POLLIN)
        while True:
            ready = dict(poll.poll())
            if pidfd in ready:
                _, status = os.waitpid(pid, 0)
                self.channel.send(ENDED_FORM.pack(ENDED, status), socket.MSG_NOSIGNAL)
                return
            message = self.channel.recv(LARGEST)
            if message[:1] == SIGNAL:
                _signal_group(pid, SIGNAL_FORM.unpack(message)[1])
            elif not message:
                _signal_group(pid, signals.SIGHUP)
                poll.unregister(self.channel)


def _signal_group(pid: int, number: int) -> None:
    """The process is not reaped yet, so the number is still its own, and its group's."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        pass  # all of the group have ended, or have become another user by a setuid program


def _above(limit: int, other: int) -> bool:
    """Whether a resource limit is the higher one of two; RLIM_INFINITY is a negative number here."""
    return other != resource.RLIM_INFINITY and (limit == resource.RLIM_INFINITY or limit > other)


def _is_executed(pid: int) -> bool:
    """Whether a traced child stopped for its exec; it has ended otherwise. SystemFailure for one that does neither.

    An exec may wait for what stands still: a file system of the guest's own (fuse(4)).
    """
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = os.waitid(os.P_PID, pid, os.WEXITED | os.WSTOPPED | os.WNOHANG | os.WNOWAIT)
        if found is not None:
            return found.si_code in (os.CLD_TRAPPED, os.CLD_STOPPED)
        time.sleep(0.0005)
    os.kill(pid, signals.SIGKILL)
    raise SystemFailure("the command cannot be started while the guest stands still", hint="has it an id map?")


def _narrow_capabilities(bounding: int) -> None:
    """What the inner process has before its exec is no more than what it can have after."""
    effective, permitted, _ = capabilities.get_capabilities()
    capabilities.set_capabilities(effective & bounding, permitted & bounding, 0)


def _cannot_run(name: str, number: int) -> SystemFailure:
    missing = number in (errno.ENOENT, errno.ENOTDIR)
    why = "not found in the guest" if missing else os.strerror(number)
    return SystemFailure(f"cannot run {name!r}: {why}", exit_code=EX_NOT_FOUND if missing else EX_CANNOT_RUN)

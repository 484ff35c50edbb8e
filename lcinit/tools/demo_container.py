"""The container of a demonstration: namespaces made by one clone3(2), with lcinit as their PID 1."""

from __future__ import annotations

import os
import select
import signal
import time

from lcinit.boot.own import program
from lcinit.errors import LcinitError, SystemFailure
from lcinit.linux import calls, mount, namespaces, process, signals
from lcinit.tools import demo_guest
from lcinit.tools.demo_guest import Shape

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.tools.demo import Warden

DEADLINE = 20.0  # seconds for the boot, and again for the end
_WHOLE = namespaces.CLONE_NEWNS | namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNET
_WHOLE |= namespaces.CLONE_NEWUTS | namespaces.CLONE_NEWIPC


class Guest:
    """The running guest. `pid` is its PID 1 outside, `pidfd` the handle; `outputs` its standard output and error."""

    def __init__(
        self,
        shape: Shape,
        links: tuple[tuple[str, str], ...],
        config: str,
        warden: Warden,
        terminal: tuple[int, int] | None = None,
        command: tuple[str, ...] = ("init", "--config"),
    ) -> None:
        """`command` is what lcinit is asked for; the path of `config` follows."""
        self.begun = time.monotonic()
        self._status: int | None = None
        output, errors, go = os.pipe(), os.pipe(), os.pipe()
        streams = (terminal[1],) * 3 if terminal else (os.open(os.devnull, os.O_RDONLY), output[1], errors[1])
        flags = _WHOLE | namespaces.CLONE_PIDFD
        try:
            pid, self.pidfd = namespaces.clone3(flags, cgroup_fd=warden.cgroup if warden.cgroup >= 0 else None)
        except OSError as error:
            hint = "see lcinit doctor"
            raise SystemFailure.from_os_error("make namespaces for the guest", error, hint=hint) from error
        if pid == 0:
            try:
                process.set_pdeathsig(signal.SIGKILL)
                warden.leave()
                os.close(go[1])
                if os.read(go[0], 1) == b"1":
                    _be_container(shape, links, config, streams, command)
            finally:
                os._exit(1)
        self.pid = pid
        for fd in (output[1], errors[1], go[0]):
            os.close(fd)
        self.outputs = (output[0], errors[0])
        warden.guard(self.pidfd)
        os.write(go[1], b"1")
        os.close(go[1])

    def ended(self) -> int:
        """Wait for its end; the exit code, 128+N for signal N."""
        if self._status is None:
            self._status = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return self._status if self._status >= 0 else 128 - self._status

    def read_until(self, mark: str) -> tuple[list[str], list[str]]:
        """Its lines of output and of errors, up to the line `mark` or its end. SystemFailure after DEADLINE."""
        texts = dict.fromkeys(self.outputs, b"")
        waiting = set(self.outputs)
        deadline = time.monotonic() + DEADLINE
        wanted = f"{mark}\n".encode()
        while waiting and wanted not in texts[self.outputs[0]]:
            ready = select.select(waiting, [], [], max(0.0, deadline - time.monotonic()))[0]
            if not ready:
                said = texts[self.outputs[1]].decode(errors="replace").strip()
                raise SystemFailure(f"the guest was not ready after {DEADLINE:.0f} s" + (f": {said}" if said else ""))
            for fd in ready:
                received = os.read(fd, 65536)
                texts[fd] += received
                if not received:
                    waiting.discard(fd)
        output, errors = (texts[fd].decode(errors="replace").splitlines() for fd in self.outputs)
        return output, errors


def _be_container(
    shape: Shape,
    links: tuple[tuple[str, str], ...],
    config: str,
    streams: tuple[int, int, int],
    command: tuple[str, ...],
) -> None:
    """In the child, PID 1 of the new namespaces: what a container manager would do, and then lcinit."""
    try:
        os.setsid()
        for target, fd in enumerate(streams):
            os.dup2(fd, target)
        if os.isatty(0):
            process.set_controlling_tty(0)
            os.fchown(0, shape.users, shape.groups)
        namespaces.unshare(namespaces.CLONE_NEWCGROUP)
        mount.make_slave("/")
        mount.make_private("/")
        proc = mount.new_mount("proc", {}, mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC)
        mount.move_mount(proc, "", calls.AT_FDCWD, "/proc", 0)
        path = demo_guest.make(shape, links, config)
        process.close_range(3)
        signals.reset_signals()
        argv = program("lcinit", (*command, path))
        os.execve(argv[0], argv, {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "TERM": os.environ.get("TERM", "linux")})
    except (OSError, LcinitError) as error:
        why = error.strerror if isinstance(error, OSError) else str(error)
        os.write(2, f"lcinit: error: cannot prepare the guest: {why}\n".encode(errors="replace"))

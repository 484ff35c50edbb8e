"""Who a test's process may be at the control socket, and what such a one is answered."""

from __future__ import annotations

import json
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from lcinit.linux import mount, namespaces, process
from lcinit.linux.calls import AT_FDCWD
from tests.namespace.control_rig import Rig

STATUS = b'{"method":"io.lcinit.Manager.Status"}\0'
ORDINARY = 1234


def reachable_path() -> Iterator[str]:
    """A path for a socket that everybody can reach: for a fixture."""
    with tempfile.TemporaryDirectory(prefix="lcinit-control-") as directory:
        os.chmod(directory, 0o755)
        yield f"{directory}/lcinit/control"


def open_to_all(rig: Rig) -> None:
    """Only the judgement of peers is left to keep anybody out."""
    os.chmod(os.path.dirname(rig.path), 0o755)
    os.chmod(rig.path, 0o666)


def connect(rig: Rig) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.connect(rig.path)
    client.settimeout(5)  # not before: a connect that must not wait fails where others wait to be let in
    return client


def answer_as(identity: Callable[[], object], rig: Rig) -> dict[str, Any]:
    """What a process of that identity is answered to Status; "closed" says whether the server hung up by itself."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            identity()
            with connect(rig) as client:
                try:
                    client.sendall(STATUS)
                except BrokenPipeError:
                    pass
                client.settimeout(0.5)
                data, closed = b"", False
                try:
                    while received := client.recv(65536):
                        data += received
                    closed = True
                except ConnectionResetError:
                    closed = True
                except TimeoutError:
                    pass
            told = {"closed": closed, **json.loads(data.split(b"\0")[0])}
        except BaseException as error:
            told = {"failed": f"{type(error).__name__}: {error}"}
        os.write(writing, json.dumps(told).encode())
        os._exit(0)
    os.close(writing)
    with open(reading, "rb") as file:
        answer: dict[str, Any] = json.load(file)
    os.waitpid(child, 0)
    return answer


def nobody_else() -> None:
    """The test's own root, as it is."""


def user(number: int = ORDINARY) -> Callable[[], None]:
    """Become an ordinary user of the user namespace that the process is in."""

    def become() -> None:
        os.setgroups([])
        os.setresgid(number, number, number)
        os.setresuid(number, number, number)

    return become


def root_of(maps: str) -> Callable[[], None]:
    """Become root of a new user namespace with this map, which a process outside writes."""

    def become() -> None:
        unshared, told = os.pipe()
        mapped, done = os.pipe()
        writer = os.fork()
        if writer == 0:
            try:
                os.read(unshared, 1)
                for name in ("uid_map", "gid_map"):
                    with open(f"/proc/{os.getppid()}/{name}", "w") as file:
                        file.write(maps)
                os.write(done, b"x")
            finally:
                os._exit(0)
        os.close(done)
        namespaces.unshare(namespaces.CLONE_NEWUSER)
        os.write(told, b"x")
        written = os.read(mapped, 1)
        os.waitpid(writer, 0)
        if not written:
            raise AssertionError(f"the map {maps!r} cannot be written")
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)

    return become


def pid_1_of_another() -> None:
    """For a server: go on as PID 1 of a new PID namespace; who is outside has no number there."""
    namespaces.unshare(namespaces.CLONE_NEWPID | namespaces.CLONE_NEWNS)
    mount.make_private("/")
    inner = os.fork()
    if inner:
        os.closerange(3, 1000)
        signal.signal(signal.SIGTERM, lambda *_: os.kill(inner, signal.SIGTERM))
        os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]))
    process.set_pdeathsig(signal.SIGKILL)
    proc = mount.new_mount("proc")
    mount.move_mount(proc, "", AT_FDCWD, "/proc", 0)
    os.close(proc)

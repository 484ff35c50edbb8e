"""What one key demands of another. Nothing that a user wrote is ever ignored: what would have no effect is refused."""

from __future__ import annotations

from lcinit.config.shapes import INVALID
from lcinit.config.values import Capabilities, Devices, Namespaces, Network

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from lcinit.config.shapes import Reading

_DONE_BY_SETUP: Final[dict[str, Any]] = {
    "id_map": (None, False),
    "devices": Devices(),
    "namespaces": Namespaces(),
    "hostname": None,
    "network": Network(),
    "mounts": (),
    "fstab": None,
    "capabilities": Capabilities(),
    "root.read_only": False,
    "root.id_map": False,
}
"""What the set-up does, and what each key reads into where it asks for nothing."""


def check(reading: Reading) -> None:
    """Note every contradiction between keys. Keys that are wrong in themselves take no part."""
    _set_up(reading)
    _root(reading)
    _network(reading)
    _capabilities(reading)
    _tolerant(reading)
    _services(reading)
    _stop(reading)


def _given(reading: Reading, path: str, nothing: Any) -> bool:
    """Whether the key was given, is right in itself, and asks for something."""
    return reading.value(path, nothing) not in (nothing, INVALID)


def _refuse(reading: Reading, path: str, what: str, right: str) -> None:
    node, _ = reading.found[path]
    reading.problem(node, path, what, right)


def _mode(reading: Reading) -> str:
    """The mode of setup, wherever it was written; empty when it is wrong."""
    setup = reading.value("setup", None)
    if setup is INVALID:
        mode = reading.value("setup.mode", "auto")
        return mode if isinstance(mode, str) else ""
    return setup.mode if setup is not None else "auto"


def _set_up(reading: Reading) -> None:
    if _mode(reading) != "none":
        return
    for path, nothing in _DONE_BY_SETUP.items():
        if _given(reading, path, nothing):
            _refuse(reading, path, "has no effect while setup.mode is none", "leave it out, or write setup.mode: auto")


def _root(reading: Reading) -> None:
    if _given(reading, "root.id_map", False) and reading.value("id_map", None) is None:
        _refuse(
            reading, "root.id_map", "there is no id_map to mount the guest root by", "write id_map, or leave it out"
        )
    if reading.value("root.path", "") is not None:
        return
    if _given(reading, "root.mode", "none"):
        _refuse(reading, "root.mode", "there is no guest root to enter: root.path is null", "write none, or a path")
    if _given(reading, "root.read_only", False):
        _refuse(reading, "root.read_only", "there is no guest root: root.path is null", "leave it out, or write a path")
    if _given(reading, "root.id_map", False):
        _refuse(reading, "root.id_map", "there is no guest root: root.path is null", "leave it out, or write a path")


def _network(reading: Reading) -> None:
    namespaces = reading.value("namespaces", Namespaces())
    if namespaces is INVALID:
        return
    if not namespaces.uts and _given(reading, "hostname", None):
        right = "write namespaces.uts: true, else it would rename what is outside"
        _refuse(reading, "hostname", "the guest has no host name of its own", right)
    if not namespaces.network:
        interfaces = reading.value("network.interfaces", "auto")
        if interfaces not in ("auto", "none", (), INVALID):
            right = "write namespaces.network: true, or interfaces: none"
            _refuse(reading, "network.interfaces", "the guest has no network namespace to move them to", right)


def _capabilities(reading: Reading) -> None:
    drop, keep = (reading.value(f"capabilities.{key}", ()) for key in ("drop", "keep"))
    if drop is INVALID or keep is INVALID:
        return
    both = [name for name in keep if name in drop]
    if both:
        _refuse(reading, "capabilities.keep", f"{', '.join(both)} is in drop too", "keep it in one of them")


_STAYING: Final[dict[str, Any]] = {
    "exec.pid": "nested",
    "exec.on_reboot": "auto",
    "exec.on_exit": "exit",
    "exec.forward_to": "process",
    "shutdown.timeout": None,
    "shutdown.after": (),
}
"""What lcinit does only while it stays, and what each key reads into where it asks for nothing."""


def _tolerant(reading: Reading) -> None:
    mode = reading.value("exec.mode", "handoff")
    if mode == "handoff":
        for path, nothing in _STAYING.items():
            if _given(reading, path, nothing):
                _refuse(reading, path, "has no effect after a handoff", "write exec.mode: tolerant, or leave it out")
    elif reading.value("exec.pid", "nested") == "nested":
        if _given(reading, "exec.forward_to", "process"):
            right = "write exec.pid: shared, or leave it out"
            _refuse(reading, "exec.forward_to", "a nested guest's init is asked in its own words", right)
    elif reading.value("exec.pid", "nested") == "shared":
        serves = reading.value("services", None) is not None
        if _given(reading, "exec.on_reboot", "auto") and not serves:
            right = "write exec.pid: nested, or leave it out"
            _refuse(reading, "exec.on_reboot", "has no effect with exec.pid: shared", right)
        if _given(reading, "shutdown.after", ()):
            right = "write exec.pid: nested, or leave it out"
            _refuse(reading, "shutdown.after", "the boot root is out of reach with exec.pid: shared", right)
        if _given(reading, "initctl", False) and reading.value("initctl", False) is True and not serves:
            right = "write services, or exec.pid: nested, or leave it out"
            _refuse(reading, "initctl", "nobody serves it with exec.pid: shared and without services", right)


_SERVED: Final[dict[str, Any]] = {"services_dir": "/etc/lcinit/services", "runlevel": "3"}
"""What is said of services in general, and what each key reads into where it asks for nothing."""
_OF_A_COMMAND: Final[dict[str, Any]] = {
    "exec.on_exit": "exit",
    "exec.forward_to": "process",
    "exec.stop": (),
    "exec.user": None,
    "exec.group": None,
    "exec.groups": (),
}
"""What is said of the command that services may have beside them."""


def _services(reading: Reading) -> None:
    services = reading.value("services", None)
    if services is INVALID:
        return
    if services is None:
        for path, nothing in _SERVED.items():
            if _given(reading, path, nothing):
                _refuse(reading, path, "has no effect without services", "write services, if only {}, or leave it out")
        return
    mode, pid = reading.value("exec.mode", "handoff"), reading.value("exec.pid", "nested")
    if INVALID not in (mode, pid) and (mode, pid) != ("tolerant", "shared"):
        right = "write exec: {mode: tolerant, pid: shared}, or leave it out"
        _refuse(reading, "services", "lcinit supervises services where it is the guest's own init", right)
        return
    if reading.value("exec.command", None) is None:
        for path, nothing in _OF_A_COMMAND.items():
            if _given(reading, path, nothing):
                _refuse(reading, path, "there is no exec.command beside the services", "write one, or leave it out")


def _stop(reading: Reading) -> None:
    if reading.value("exec.mode", "handoff") != "handoff":
        return
    if _given(reading, "exec.stop", ()) and reading.value("initctl", False) not in (True, INVALID):
        right = "write initctl: true or exec.mode: tolerant, or leave it out"
        _refuse(reading, "exec.stop", "nobody asks the guest after a handoff without initctl", right)

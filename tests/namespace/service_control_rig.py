"""Services for the control server of control_rig, over an object that plays the supervisor and notes what was asked."""

from __future__ import annotations

import asyncio
import errno
import signal
from typing import Any

from lcinit.control.service import ControlServer
from lcinit.control.services import NoSuchService
from lcinit.control.serving import serving
from lcinit.control.waiting import Waiting
from lcinit.errors import EX_UNAVAILABLE, LcinitError, SystemFailure
from lcinit.supervisor.events import EventLog
from tests.namespace.control_rig import FakeServed, Rig

SINCE = 1790000000.0
ACTIVE = {"dead": "inactive", "start": "activating", "running": "active", "stop-sigterm": "deactivating"}


def service(name: str, sub: str, **facts: Any) -> dict[str, Any]:
    """A service as the interface types it."""
    return {
        "name": name,
        "description": f"the {name} service",
        "state": ACTIVE.get(sub, sub),
        "sub": sub,
        "result": "success",
        "reason": "",
        "since": SINCE,
        "started": None,
        "pid": None,
        "status": None,
        "signal": None,
        "restarts": 0,
        "status_text": None,
        "enabled": True,
        "runlevels": ["2", "3", "4", "5"],
        "waits_for": [],
        "requires": [],
        "wants": [],
        "after": [],
        "memory": None,
        "processes": None,
        "cgroup": None,
        "type": "simple",
        "command": [f"/usr/sbin/{name}"],
        "origin": f"/usr/lib/lcinit/services/{name}.yml",
        "log": "console",
        **facts,
    }


def services() -> list[dict[str, Any]]:
    """What there is at first: one that is up, one that is down, one that cannot start, two that take their time."""
    up = {"pid": 70, "started": SINCE, "memory": 5 << 20, "processes": 3, "cgroup": "/lcinit/web", "requires": ["db"]}
    return [
        service("web", "running", **up, after=["db"], status_text="serving"),
        service("db", "dead", enabled=False),
        service("broken", "failed", result="exit-code", status=3, reason="exit code 3"),
        service("slow", "dead"),
        service("slower", "dead"),
    ]


class FakeServices:
    """`slow` and `slower` come up at SIGUSR1 and fail at SIGUSR2; `broken` fails."""

    def __init__(self, events: EventLog) -> None:
        self.events = events
        self._table = {each["name"]: each for each in services()}
        self._waiting: list[tuple[Waiting, str, tuple[str, ...], tuple[str, ...]]] = []
        self._runlevel = ("3", "N")
        self._read = False

    def list(self, names: tuple[str, ...] | None) -> dict[str, Any]:
        chosen = [self._table[name] for name in self._known(names)]
        return {"services": chosen, "runlevel": self._runlevel[0], "previous": self._runlevel[1]}

    def start(self, names: tuple[str, ...], origin: str) -> Waiting:
        return self._begin("start", names, origin)

    def stop(self, names: tuple[str, ...], origin: str) -> Waiting:
        for name in self._known(names):
            self._table[name].update(sub="dead", state="inactive", pid=None)
        return self._note("stop", names, origin, ("dead",))

    def restart(self, names: tuple[str, ...], origin: str) -> Waiting:
        return self._begin("restart", names, origin)

    def reload(self, names: tuple[str, ...], origin: str) -> Waiting:
        waiting = self._note("reload", self._known(names), origin, ("running", "dead", "failed"))
        if "broken" in names:
            waiting = Waiting()
            waiting.fail(LcinitError("cannot reload broken: it is not up", hint="start it", exit_code=EX_UNAVAILABLE))
        elif "db" in names:
            waiting = Waiting()
            asyncio.get_running_loop().call_soon(waiting.fail, ZeroDivisionError("a bug"))
        elif "slow" in names:
            waiting = Waiting()
            asyncio.get_running_loop().call_soon(waiting.finish, {"done": {"a", "set"}})
        return waiting

    def kill(self, name: str, number: int, whom: str) -> int:
        self._known((name,))
        self.events.record("signalled", service=name, number=number, whom=whom)
        if number == signal.SIGUSR1:
            self._table[name].update(sub="running", state="active", pid=71, waits_for=[])
        if number == signal.SIGUSR2:
            self._table[name].update(sub="failed", state="failed", result="timeout", reason="not ready within 90 s")
        self._settle()
        return 3 if whom == "all" else 1

    def reset_failed(self, names: tuple[str, ...] | None) -> None:
        self.events.record("reset", services=list(self._known(names)))

    def enable(self, names: tuple[str, ...]) -> Waiting:
        return self._set_enabled(names, True)

    def disable(self, names: tuple[str, ...]) -> Waiting:
        return self._set_enabled(names, False)

    def daemon_reload(self, dry_run: bool) -> Waiting:
        waiting = Waiting()
        changes = [
            {"name": "web", "kind": "changed", "keys": ["command", "user"], "effect": "restart"},
            {"name": "new", "kind": "added", "keys": [], "effect": "start"},
        ]
        result = {"changes": [] if self._read else changes}
        self._read = self._read or not dry_run
        asyncio.get_running_loop().call_later(0.05, waiting.finish, result)
        return waiting

    def wait(self, names: tuple[str, ...], state: str, timeout: float | None) -> Waiting:
        subs = ("running", "exited", "failed") if state == "ready" else ("dead", "failed")
        waiting = self._add("services", self._known(names), subs)
        if timeout is not None:
            asyncio.get_running_loop().call_later(timeout, self._over, waiting)
        return waiting

    def set_runlevel(self, runlevel: str, origin: str) -> None:
        self.events.record("runlevel-asked", runlevel=runlevel, origin=origin)
        self._runlevel = (runlevel, self._runlevel[0])

    def runlevel(self) -> tuple[str, str]:
        return self._runlevel

    def _known(self, names: tuple[str, ...] | None) -> tuple[str, ...]:
        for name in names or ():
            if name not in self._table:
                raise NoSuchService(name)
        return tuple(self._table) if names is None else names

    def _begin(self, verb: str, names: tuple[str, ...], origin: str) -> Waiting:
        for name in self._known(names):
            if name == "broken":
                self._table[name].update(sub="failed", state="failed")
            elif name.startswith("slow"):
                self._table[name].update(sub="start", state="activating", waits_for=["db"] if name == "slower" else [])
            else:
                self._table[name].update(sub="running", state="active", pid=72)
        return self._note(verb, names, origin, ("running", "failed"))

    def _note(self, verb: str, names: tuple[str, ...], origin: str, subs: tuple[str, ...]) -> Waiting:
        self.events.record(f"{verb}-asked", services=list(names), origin=origin)
        return self._add("done", names, subs)

    def _add(self, key: str, names: tuple[str, ...], subs: tuple[str, ...]) -> Waiting:
        waiting = Waiting(lambda: self._abandoned(waiting))
        self._waiting.append((waiting, key, names, subs))
        self._settle()
        return waiting

    def _abandoned(self, waiting: Waiting) -> None:
        self._waiting = [each for each in self._waiting if each[0] is not waiting]
        self.events.record("abandoned")

    def _settle(self) -> None:
        for each in list(self._waiting):
            waiting, key, names, subs = each
            if all(self._table[name]["sub"] in subs for name in names):
                self._waiting.remove(each)
                waiting.finish({key: [self._result(name, subs) for name in names]})

    def _over(self, waiting: Waiting) -> None:
        for each in list(self._waiting):
            if each[0] is waiting:
                self._waiting.remove(each)
                waiting.finish({each[1]: [self._result(name, each[3]) for name in each[2]]})

    def _result(self, name: str, subs: tuple[str, ...]) -> dict[str, Any]:
        each = self._table[name]
        ok = each["sub"] in subs and each["sub"] != "failed"
        return {"name": name, "ok": ok, "state": each["state"], "sub": each["sub"], "reason": each["reason"]}

    def _set_enabled(self, names: tuple[str, ...], enabled: bool) -> Waiting:
        waiting = Waiting()
        if "broken" in self._known(names):
            error = OSError(errno.EROFS, "Read-only file system", "/etc/lcinit/enabled")
            waiting.fail(SystemFailure.from_os_error("enable broken", error))
            return waiting
        changed = [name for name in names if self._table[name]["enabled"] != enabled]
        for name in changed:
            self._table[name]["enabled"] = enabled
        waiting.finish({"changed": changed})
        return waiting


def report_with_services(report: dict[str, Any]) -> dict[str, Any]:
    """A Report as it is where there are services in the guest's place."""
    return {
        **report,
        "mode": "shared",
        "guest": None,
        "history": [],
        "starts": 1,
        "runlevel": "3",
        "services": {"up": 1, "failed": 1, "total": 5},
    }


class FakeServedBesideServices(FakeServed):
    def status(self) -> dict[str, Any]:
        return report_with_services(super().status())


def services_server(path: str) -> ControlServer:
    """A server as it is where lcinit supervises services."""
    served = FakeServedBesideServices()
    return ControlServer(serving(served, FakeServices(served.events)), path=path)


class ServicesRig(Rig):
    """The server's process, with services."""

    def __init__(self, path: str, loop: str = "asyncio", **options: Any) -> None:
        super().__init__(path, loop, server=services_server, **options)

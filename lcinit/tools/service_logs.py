"""`lcinit logs` where there are services: their files and lcinit's own records, merged by time, and followed."""

from __future__ import annotations

import heapq
import json
import os
import queue
import resource
import sys
import threading
import time
from collections import deque

from lcinit.control.client import PATH, Client
from lcinit.control.services import INTERFACE
from lcinit.errors import EX_UNAVAILABLE, LcinitError, SystemFailure
from lcinit.service.log_lines import CUT, decoded, escaped
from lcinit.tools.log_reading import ServiceLog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    from lcinit.tools.log_reading import Line, Place

    Entry = tuple[int, str, str]  # nanoseconds since 1970, name, and how it is shown

OWN = "lcinit"
"""The name that lcinit's own records have."""
POLL = 0.25  # seconds between two looks at the files, while they are followed
LATEST = 10  # lines that following begins with
_TO_FILES = ("file", "both")
_UNITS = {"w": 604800, "d": 86400, "h": 3600, "m": 60, "s": 1}


class Wish:
    """What is to be shown. `last` is a number of lines, `since` nanoseconds since 1970; None: all."""

    def __init__(self, names: list[str], *, last: int | None, since: int | None, follow: bool, as_json: bool) -> None:
        self.names = names
        self.last = last
        self.since = since
        self.follow = follow
        self.as_json = as_json


def services_of(path: str) -> list[dict[str, Any]] | None:
    """The services that the lcinit behind a control socket supervises; None: it is none of those that have any."""
    with Client(path) as client:
        if INTERFACE not in client.call("org.varlink.service.GetInfo").get("interfaces", ()):
            return None
        services: list[dict[str, Any]] = client.call(f"{INTERFACE}.List")["services"]
    return services


def moment_of(text: str, now: float) -> float:
    """The unix time that `10m`, an ISO 8601 date (UTC unless it says so) or unix seconds mean. ValueError."""
    import datetime
    import re

    if re.fullmatch(r"([0-9]{1,6}[wdhms])+", text):
        return now - sum(int(amount) * _UNITS[unit] for amount, unit in re.findall("([0-9]+)(.)", text))
    if re.fullmatch(r"[0-9]{9,10}(\.[0-9]{1,9})?", text):
        return float(text)
    moment = datetime.datetime.fromisoformat(text)
    return moment.replace(tzinfo=moment.tzinfo or datetime.UTC).timestamp()


def root_of(socket_path: str) -> str:
    """The root of the files of the lcinit behind a control socket: that which has the socket in its place."""
    return (socket_path.removesuffix(PATH) or "/") if socket_path.endswith(PATH) else "/"


def show(path: str, services: list[dict[str, Any]], wish: Wish) -> None:
    """Print what is wished for; with `follow` until ctrl-C, or until lcinit ends. Raises LcinitError."""
    _raise_descriptors()
    own, names = _chosen(services, wish.names)
    root = _open_root(root_of(path))
    shown = Shown(wish.as_json)
    with Client(path) as client:
        records = client.call("Logs")["records"] if own else []
        files = Files(root, names, shown)
        older = [files.entries(name, wish) for name in names]
        merged: Iterable[Entry] = heapq.merge(shown.records(records, wish), *older, key=lambda entry: entry[0])
        if wish.last is not None:
            merged = deque(merged, wish.last)
        for _, _, text in merged:
            sys.stdout.write(text)
        sys.stdout.flush()
        if wish.follow:
            news = _Records(client, after=records[-1]["seq"] if records else 0) if own else None
            _follow(files, news, shown)


def _chosen(services: list[dict[str, Any]], wanted: list[str]) -> tuple[bool, list[str]]:
    """Whether lcinit's own records are wanted, and the services whose files are."""
    kinds = {str(service["name"]): str(service["log"]) for service in services}
    unknown = [name for name in wanted if name != OWN and name not in kinds]
    if unknown:
        known = ", ".join(sorted({OWN, *kinds}))
        raise LcinitError(f"there is no service {unknown[0]}", hint=f"there are {known}", exit_code=EX_UNAVAILABLE)
    for name in dict.fromkeys(wanted):
        if name != OWN and kinds[name] not in _TO_FILES:
            where = "goes to the console alone" if kinds[name] == "console" else "is thrown away"
            print(f"lcinit: what {escaped(name)} writes {where} (its file says log.to: {kinds[name]})", file=sys.stderr)
    names = [name for name in dict.fromkeys(wanted or sorted(kinds)) if name in kinds]
    if not wanted:
        names = [name for name in names if kinds[name] in _TO_FILES]
    return OWN in wanted or not wanted, [name for name in names if "/" not in name and name not in ("", ".", "..")]


def _open_root(path: str) -> int:
    try:
        return os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise SystemFailure.from_os_error(f"open {path}", error) from error


def _raise_descriptors() -> None:
    """Each service takes some."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Shown:
    """How lines look. Text is escaped: nothing of it moves a cursor or ends a line; JSON is ASCII."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._second = -1
        self._text = ""

    def line(self, moment: int, name: str, line: bytes, cut: bool) -> Entry:
        """A service's."""
        text = decoded(line)
        if self._as_json:
            facts = {"time": moment / 1e9, "service": name, "message": text}
            return moment, name, json.dumps({**facts, "cut": True} if cut else facts) + "\n"
        return moment, name, f"{self._moment(moment)} {name}: {escaped(text)}{CUT if cut else ''}\n"

    def record(self, record: dict[str, Any]) -> Entry:
        """One of lcinit's own."""
        moment = int(record["time"] * 1e9)
        if self._as_json:
            return moment, OWN, json.dumps({"service": OWN, **record}) + "\n"
        text = escaped(f"{record['level']}: {record['message']}")
        return moment, OWN, f"{self._moment(moment)} {OWN}: {text}\n"

    def records(self, records: list[dict[str, Any]], wish: Wish) -> Iterator[Entry]:
        """Those that are wished for."""
        entries = [self.record(record) for record in records]
        return iter([entry for entry in entries if wish.since is None or entry[0] >= wish.since])

    def _moment(self, moment: int) -> str:
        second = moment // 10**9
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(second))
        return f"{self._text}.{moment // 10**6 % 1000:03d}Z"


class Files:
    """The logs of services below a root. One that has no files may have them later."""

    def __init__(self, root: int, names: list[str], shown: Shown) -> None:
        self._root = root
        self._shown = shown
        self._missing = set(names)
        self._told: set[tuple[str, str]] = set()
        self._logs: dict[str, ServiceLog] = {}
        self._look()

    def _look(self) -> list[ServiceLog]:
        """The logs that are there now and were not before."""
        found = []
        for name in sorted(self._missing):
            try:
                found.append(ServiceLog(self._root, name))
            except FileNotFoundError:
                continue
            except OSError as error:
                self._tell(name, error.strerror or str(error))
            self._missing.discard(name)
        self._logs.update((log.name, log) for log in found)
        return found

    def _tell(self, name: str, problem: str) -> None:
        if (name, problem) not in self._told:
            self._told.add((name, problem))
            print(f"lcinit: the files of {escaped(name)}: {escaped(problem)}", file=sys.stderr)

    def _tell_odd(self, log: ServiceLog) -> None:
        for name in log.odd:
            self._tell(log.name, f"{name} is no plain file, and not read")

    def entries(self, name: str, wish: Wish) -> Iterator[Entry]:
        """What there is of a service, as it is wished for."""
        log = self._logs.get(name)
        if log is None:
            return iter(())
        start: Place = log.begin() if wish.since is None else log.since(wish.since)
        if wish.last is not None:
            start = max(start, log.last(wish.last))
        return self._entries_of(log, log.lines(start, follows=wish.follow))

    def news(self) -> list[Iterator[Entry]]:
        """What has come since, of each service."""
        new = [self._entries_of(log, log.lines(log.begin(), follows=True)) for log in self._look()]
        return new + [self._entries_of(log, log.news()) for log in self._logs.values()]

    def _entries_of(self, log: ServiceLog, lines: Iterator[Line]) -> Iterator[Entry]:
        for moment, line, cut in lines:
            yield self._shown.line(moment, log.name, line, cut)
        self._tell_odd(log)


class _Records:
    """lcinit's own records as they come: a thread waits for them."""

    def __init__(self, client: Client, after: int) -> None:
        self._queue: queue.SimpleQueue[dict[str, Any] | LcinitError] = queue.SimpleQueue()
        self._client = client
        self._after = after
        threading.Thread(target=self._receive, daemon=True).start()

    def _receive(self) -> None:
        try:
            for reply in self._client.stream("Logs", after=self._after, follow=True):
                self._queue.put(reply)
        except LcinitError as error:
            self._queue.put(error)

    def wait(self, seconds: float) -> tuple[list[dict[str, Any]], LcinitError | None]:
        """The records that come within this time or shortly after, and what it has ended with if it has."""
        records: list[dict[str, Any]] = []
        try:
            told = self._queue.get(timeout=seconds)
            while not isinstance(told, LcinitError):
                records += told["records"]
                told = self._queue.get_nowait()
        except queue.Empty:
            return records, None
        return records, told


def _follow(files: Files, news: _Records | None, shown: Shown) -> None:
    """Show what comes. Raises LcinitError when lcinit ends."""
    while True:
        ended = None
        own: list[Entry] = []
        if news is None:
            time.sleep(POLL)
        else:
            records, ended = news.wait(POLL)
            own = [shown.record(record) for record in records]
        for _, _, text in heapq.merge(own, *files.news(), key=lambda entry: entry[0]):
            sys.stdout.write(text)
        sys.stdout.flush()
        if ended is not None:
            raise ended

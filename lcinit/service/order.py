"""Which service starts after which, what a start pulls in, and who must be down first. Pure.

`requires` and `wants` pull in and order, `start_after` and `start_before` only order; names that nobody defines order
nothing. A cycle has no order: it is reported by its names, and none of its members can be started.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from lcinit.config.service_values import Service


class Graph:
    """The relations between services. `after[X]` are those that must have come up, or failed to, before X starts;
    `before` is the inverse: those that must be down before X stops. `needed_by[X]` require X.
    """

    def __init__(
        self,
        services: Mapping[str, Service],
        first: Collection[str] = (),
        last: str = "",
        gone: Collection[str] = (),
    ) -> None:
        """All others start after those in `first`, with what these start after themselves; `last` after all others.
        Those that are `gone` are no longer defined, and there until they are down: nothing starts them.
        """
        self.services = services
        self.gone = frozenset(gone)
        self.after: dict[str, frozenset[str]] = {}
        self.before: dict[str, list[str]] = {name: [] for name in services}
        self.needed_by: dict[str, list[str]] = {name: [] for name in services}
        after = {name: {*each.requires, *each.wants, *each.start_after} for name, each in services.items()}
        for name, each in services.items():
            for later in each.start_before:
                if later in after:
                    after[later].add(name)
        early = _all_before(after, first)
        for name in after:
            if name not in early:
                after[name] |= early
        if last in after:
            after[last] |= after.keys() - {last}
        for name, earlier in after.items():
            self.after[name] = frozenset(other for other in earlier if other in services)
            for other in self.after[name]:
                self.before[other].append(name)
            for other in services[name].requires:
                if other in services:
                    self.needed_by[other].append(name)

    def missing(self, name: str) -> tuple[str, ...]:
        """What it requires and nobody defines."""
        return tuple(other for other in self.services[name].requires if not self._defined(other))

    def pulled_in(self, names: Iterable[str]) -> frozenset[str]:
        """These and all that they require or want, and so on."""
        found: set[str] = set()
        pending = [name for name in names if self._defined(name)]
        while pending:
            name = pending.pop()
            if name in found:
                continue
            found.add(name)
            service = self.services[name]
            pending += (each for each in (*service.requires, *service.wants) if self._defined(each))
        return frozenset(found)

    def _defined(self, name: str) -> bool:
        return name in self.services and name not in self.gone

    def dependent(self, names: Iterable[str]) -> frozenset[str]:
        """These and all that require one of them, and so on: what goes down with them."""
        found: set[str] = set()
        pending = [name for name in names if name in self.services]
        while pending:
            name = pending.pop()
            if name not in found:
                found.add(name)
                pending += self.needed_by[name]
        return frozenset(found)


def _all_before(after: Mapping[str, set[str]], names: Iterable[str]) -> set[str]:
    """These and all that they start after, and so on."""
    found: set[str] = set()
    pending = [name for name in names if name in after]
    while pending:
        name = pending.pop()
        if name not in found:
            found.add(name)
            pending += (other for other in after[name] if other in after)
    return found


def start_order(graph: Graph, names: Collection[str]) -> tuple[str, ...]:
    """These names, each behind those that it starts after; by name where nothing else decides. What is in a cycle, or
    behind one, is left out.
    """
    wanted = frozenset(names)
    open_after = {name: len(graph.after[name] & wanted) for name in wanted}
    ready = sorted((name for name, count in open_after.items() if not count), reverse=True)
    found: list[str] = []
    while ready:
        name = ready.pop()
        found.append(name)
        freed = []
        for later in graph.before[name]:
            if later in wanted:
                open_after[later] -= 1
                if not open_after[later]:
                    freed.append(later)
        if freed:
            ready = sorted((*ready, *freed), reverse=True)
    return tuple(found)


def cycles(graph: Graph) -> tuple[tuple[str, ...], ...]:
    """Every group of services that start after one another in a circle, as one circle of it each: each name starts
    after the next one, and the last after the first. The smallest name is first.
    """
    left = set(graph.services) - set(start_order(graph, graph.services))
    found: list[tuple[str, ...]] = []
    for group in _groups(graph, left):
        if len(group) > 1 or next(iter(group)) in graph.after[next(iter(group))]:
            found.append(_circle(graph, group))
    return tuple(sorted(found))


def _groups(graph: Graph, names: set[str]) -> list[set[str]]:
    """The strongly connected components of what is left (Kosaraju's two passes, without recursion)."""
    finished: list[str] = []
    seen: set[str] = set()
    for start in sorted(names):
        if start in seen:
            continue
        seen.add(start)
        stack = [(start, iter(sorted(graph.after[start] & names)))]
        while stack:
            name, others = stack[-1]
            for other in others:
                if other not in seen:
                    seen.add(other)
                    stack.append((other, iter(sorted(graph.after[other] & names))))
                    break
            else:
                stack.pop()
                finished.append(name)
    groups: list[set[str]] = []
    taken: set[str] = set()
    for start in reversed(finished):
        if start in taken:
            continue
        group, pending = set(), [start]
        while pending:
            name = pending.pop()
            if name not in taken:
                taken.add(name)
                group.add(name)
                pending += (each for each in graph.before[name] if each in names)
        groups.append(group)
    return groups


def _circle(graph: Graph, group: set[str]) -> tuple[str, ...]:
    """A shortest way from the smallest name of a group back to itself."""
    first = min(group)
    came_from: dict[str, str] = {}
    pending = [first]
    for name in pending:
        for other in sorted(graph.after[name] & group):
            if other == first:
                way = [name]
                while way[-1] != first:
                    way.append(came_from[way[-1]])
                return tuple(reversed(way))
            if other not in came_from:
                came_from[other] = name
                pending.append(other)
    raise AssertionError("a strongly connected group has a way back")

"""The places where the initctl FIFO and links to it may stand: made, looked after, and taken away.

All of it may be held up by whoever owns what is mounted there. Where that is not to be trusted a process looks
(`Places.looked_at`) for the one that reads the FIFO, which hands it what it holds, and takes over what was made.
"""

from __future__ import annotations

import os

from lcinit.control.fifo import GuardedFifo, GuardedLink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any


class _Place:
    """A path where the FIFO or a link to it may stand, and a handle of its directory."""

    def __init__(self, path: str, handle: int = -1) -> None:
        self.path = path
        self.problem = ""
        self.handle = handle
        self.anew = False  # whether it was opened here
        self._parent, self._name = os.path.split(path)
        self._entry: GuardedFifo | GuardedLink | None = None

    def enter(self) -> bool:
        """Hold the directory that is there now; false, with `problem` set, where none is."""
        self.problem = ""
        if self._is_there():
            return True
        self.leave()
        try:
            self.handle = os.open(self._parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            self.failed(error)
            return False
        self.anew = True
        return True

    def holds(self) -> bool:
        """Whether what was made here still stands at the path; if so, its directory is watched again."""
        try:
            if self._entry is None or not self._is_there():
                return False
            self._entry.watch()  # first: no change slips between
            return self._entry.stands()
        except OSError:
            return False

    def make_fifo(self) -> int:
        """Make it here; its descriptor. Raises OSError."""
        entry = self._fifo()
        entry.ensure()
        return entry.fd

    def adopt_fifo(self, fd: int) -> bool:
        """Take the FIFO that is read already, if it stands here. Raises OSError."""
        return self._fifo().adopt(fd)

    def _fifo(self) -> GuardedFifo:
        if not isinstance(self._entry, GuardedFifo):
            self._forget()
            self._entry = GuardedFifo(self.handle, (os.geteuid(), os.getegid()), self._name)
        self._entry.watch()
        return self._entry

    def target(self) -> str | None:
        """Where the link leads that was made here; None where none was."""
        return self._entry.target if isinstance(self._entry, GuardedLink) else None

    def watched(self) -> int:
        """The descriptor by which the directory is watched; -1 for none."""
        return -1 if self._entry is None else self._entry.watched

    def watch(self) -> None:
        """Have the next change of the directory told, where it is watched. Asks no file system for anything."""
        if self._entry is not None and self._entry.watched >= 0:
            self._entry.watch()

    def replace(self, handle: int, watched: int, fifo: int, target: str | None) -> None:
        """What is made here stands in the directory behind this handle, watched by that descriptor."""
        self.leave()
        self.handle = handle
        owner = os.geteuid(), os.getegid()
        self._entry = (
            GuardedFifo(handle, owner, self._name) if target is None else GuardedLink(handle, target, self._name)
        )
        if isinstance(self._entry, GuardedFifo):
            self._entry.fd = fifo
        self._entry.watch_by(watched)

    def take_away(self, fifo: int, target: str | None) -> None:
        """Remove the link to `target`, or the FIFO, if it still stands in the directory held. Raises OSError."""
        if target is not None:
            GuardedLink(self.handle, target, self._name).remove()
        elif fifo >= 0:
            entry = GuardedFifo(self.handle, (os.geteuid(), os.getegid()), self._name)
            entry.fd = fifo
            entry.remove()

    def make_link(self, target: str) -> None:
        """Make it here. Raises OSError."""
        if not isinstance(self._entry, GuardedLink) or self._entry.target != target:
            self._forget()
            self._entry = GuardedLink(self.handle, target, self._name)
        self._entry.watch()
        self._entry.ensure()

    def is_at(self, other: _Place) -> bool:
        """Whether both are one and the same name, because one directory is a link to the other."""
        try:
            return self._name == other._name and os.path.samestat(os.fstat(self.handle), os.fstat(other.handle))
        except OSError:
            return False

    def failed(self, error: OSError) -> None:
        """Note why nothing of ours stands here."""
        self.problem = f"{self.path}: {error.strerror or error}"

    def withdraw(self) -> None:
        """Take away what was made here, and keep watching. Raises OSError."""
        if self._entry is not None and self._is_there():
            self._entry.remove()

    def remove(self) -> None:
        """Take away what was made here and let go. Raises OSError."""
        try:
            self.withdraw()
        finally:
            self.leave()

    def leave(self) -> None:
        """Let go of the directory, and leave what stands there."""
        self._forget()
        if self.handle >= 0:
            os.close(self.handle)
            self.handle = -1

    def _is_there(self) -> bool:
        """Whether the directory is the one held: something may have been mounted over it."""
        try:
            return self.handle >= 0 and os.path.samestat(os.stat(self._parent), os.fstat(self.handle))
        except OSError:
            return False

    def _forget(self) -> None:
        if self._entry is not None:
            self._entry.unwatch()
            if isinstance(self._entry, GuardedFifo):
                self._entry.close()
            self._entry = None


class Places:
    """The FIFO at the first of `paths` where it can be made, and links to it at the others.

    `fd` is a FIFO that is read already, and stays if it stands at one of them. `begin` is called with one that is to be
    read from now on, and says whether it can be; `lost` before the one that was read is closed.
    """

    def __init__(
        self,
        paths: Sequence[str],
        fd: int = -1,
        *,
        handles: Sequence[int] = (),
        begin: Callable[[int], bool] = lambda _fd: True,
        lost: Callable[[], object] = lambda: None,
    ) -> None:
        self.home: _Place | None = None
        self.made = 0  # FIFOs
        self.fd = fd
        self._begin = begin
        self._lost = lost
        self._places = [_Place(path, handle) for path, handle in zip(paths, handles or [-1] * len(paths), strict=True)]

    def look(self) -> None:
        """See that FIFO and links stand, or make them."""
        if self.home is not None and not self.home.holds():
            self.lose()
        usable = [place for place in self._places if place.enter()]
        if self.home is None:
            self._make(usable)
        if self.home is not None:
            self._link(self.home, usable)

    def lose(self) -> None:
        """The FIFO does not stand any more: nothing is read."""
        if self.fd >= 0:
            self._lost()
        if self.home is None and self.fd >= 0:
            os.close(self.fd)  # it is no place's
        self.home, self.fd = None, -1

    def problems(self) -> list[str]:
        """Why something of ours stands at some of them not."""
        return [place.problem for place in self._places if place.problem]

    def remove(self) -> list[str]:
        """Take away what was made and let go: why some of it cannot be."""
        problems = []
        for place in self._places:
            try:
                place.remove()
            except OSError as error:
                problems.append(f"{place.path}: {error.strerror or error}")
        self.home, self.fd = None, -1
        return problems

    def withdraw(self, error: OSError) -> None:
        """The FIFO cannot be read: leave none behind, its writers would wait."""
        home, self.home, self.fd = self.home, None, -1
        if home is None:
            return
        try:
            home.withdraw()
        except OSError as second:
            error = second
        home.failed(error)

    def _make(self, usable: Sequence[_Place]) -> None:
        """Go on with the FIFO that is read, where it stands, or make it at the first place where that can be."""
        if self.fd >= 0:
            for place in usable:
                try:
                    if place.adopt_fifo(self.fd):
                        self._settle(place, self.fd)
                        return
                except OSError as error:
                    place.failed(error)
            self.lose()
        for place in usable:
            try:
                fd = place.make_fifo()
            except OSError as error:
                place.failed(error)
                continue
            if self._settle(place, fd):
                self.made += 1
                return

    def _settle(self, place: _Place, fd: int) -> bool:
        self.home, self.fd = place, fd
        return self._begin(fd)

    def _link(self, home: _Place, usable: Sequence[_Place]) -> None:
        for place in usable:
            if not place.is_at(home):
                try:
                    place.make_link(home.path)
                except OSError as error:
                    place.failed(error)

    # by another process

    def order(self) -> tuple[dict[str, Any], list[int]]:
        """What `looked_at` and `removed` need, and the descriptors that go with it."""
        handles = [place.handle for place in self._places]
        order = {
            "paths": [place.path for place in self._places],
            "held": [handle >= 0 for handle in handles],
            "targets": [place.target() for place in self._places],
            "home": None if self.home is None else self._places.index(self.home),
        }
        return order, [fd for fd in (*handles, self.fd) if fd >= 0]

    def watch(self) -> None:
        """Have the next change told, before another process looks: so none slips between. Never held up."""
        for place in self._places:
            place.watch()

    def leave(self, error: OSError | None = None) -> None:
        """Let go of all, and leave what stands there; the FIFO cannot be read because of `error`."""
        if self.home is not None and error is not None:
            self.home.failed(error)
        for place in self._places:
            place.leave()
        self.home, self.fd = None, -1

    def take(self, answer: dict[str, Any], handed: list[int]) -> bool:
        """What another process has found, and made: whether there is something new, of which no change was told yet."""
        rest = iter(handed)
        home, old = answer["home"], self.home
        new_home = None if home is None else self._places[home]
        moved = answer["made"] or new_home is not old
        fd = self.fd
        if answer["made"]:
            fd = next(rest)
        elif moved and home is not None:
            fd = os.dup(self.fd)  # its place is another one now, and the old one's is closed
        if moved:
            self.lose()
        anything = False
        for place, (problem, new, target) in zip(self._places, answer["places"], strict=True):
            place.problem = problem
            if new:
                anything = True
                place.replace(next(rest), next(rest), fd if place is new_home else -1, target)
            elif moved and place is old:
                place.leave()
        if moved and new_home is not None:
            self._settle(new_home, fd)
            self.made += int(answer["made"])
        return anything

    # in that process

    @classmethod
    def looked_at(cls, order: dict[str, Any], given: list[int]) -> tuple[dict[str, Any], list[int]]:
        """Look: an answer for `take`."""
        places, home = cls._of(order, given)
        places.look()
        handed = [places.fd] if places.made else []
        found = []
        for index, (place, target) in enumerate(zip(places._places, order["targets"], strict=True)):
            here = place is places.home
            stands = not place.problem and (here or place.target() is not None)
            new = stands and (place.anew or (here and (bool(places.made) or index != home)) or place.target() != target)
            if new:
                handed += [place.handle, place.watched() if place.watched() >= 0 else place.handle]
            found.append((place.problem, new, place.target()))
        where = None if places.home is None else places._places.index(places.home)
        return {"home": where, "made": bool(places.made), "places": found}, handed

    @classmethod
    def removed(cls, order: dict[str, Any], given: list[int]) -> None:
        """Take away what stands there, as far as it goes."""
        places, home = cls._of(order, given)
        for index, (place, target) in enumerate(zip(places._places, order["targets"], strict=True)):
            try:
                place.take_away(places.fd if index == home else -1, target)
            except OSError:
                continue  # it may be in the place of another, which goes

    @classmethod
    def _of(cls, order: dict[str, Any], given: list[int]) -> tuple[Places, int | None]:
        rest = iter(given)
        handles = [next(rest) if held else -1 for held in order["held"]]
        home: int | None = order["home"]
        return cls(order["paths"], -1 if home is None else next(rest), handles=handles), home

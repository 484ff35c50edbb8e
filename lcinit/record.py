"""Frozen values with named fields.

The standard library's dataclasses, and every library that does the same, import `inspect`, `typing` or `re`; that is
a third of what PID 1 may spend on starting. A record needs none of them. Type checkers see a frozen, keyword-only
dataclass (PEP 681).
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Self, dataclass_transform
else:

    def dataclass_transform(**_options):
        """At run time a no-op: only type checkers read it."""
        return lambda cls: cls


@dataclass_transform(kw_only_default=True, frozen_default=True)
class Record:
    """Base of frozen values: annotations are the fields, class attributes their defaults.

    Defaults are shared between instances, so they must be immutable. Equality and hash go by type and fields.
    """

    _fields: ClassVar[tuple[str, ...]] = ()
    _defaults: ClassVar[dict[str, Any]] = {}  # of every field, None for one without
    _required: ClassVar[frozenset[str]] = frozenset()

    def __init_subclass__(cls) -> None:
        annotations: dict[str, str] = cls.__dict__.get("__annotations__", {})
        own = [name for name, text in annotations.items() if name[0] != "_" and not text.startswith("ClassVar")]
        cls._fields = (*(name for name in cls._fields if name not in own), *own)
        cls._defaults = {name: getattr(cls, name, None) for name in cls._fields}
        cls._required = frozenset(name for name in cls._fields if not hasattr(cls, name))

    def __init__(self, **values: Any) -> None:
        if not self._required <= values.keys():
            missing = next(name for name in self._fields if name in self._required and name not in values)
            raise TypeError(f"{type(self).__name__}: field {missing!r} is missing")
        if not values.keys() <= self._defaults.keys():
            unknown = next(name for name in values if name not in self._defaults)
            raise TypeError(f"{type(self).__name__}: no field {unknown!r}")
        self.__dict__.update(values)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name!r} cannot be set")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def values(self) -> dict[str, Any]:
        """Field names and values, in the order of declaration."""
        return {**self._defaults, **self.__dict__}

    def replace(self, **changes: Any) -> Self:
        """The same record with some fields changed."""
        return type(self)(**{**self.__dict__, **changes})

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.values() == other.values()

    def __hash__(self) -> int:
        return hash((type(self), tuple(self.values().values())))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value!r}" for name, value in self.values().items())
        return f"{type(self).__name__}({inner})"

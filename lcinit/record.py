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

    def __init_subclass__(cls) -> None:
        annotations: dict[str, str] = cls.__dict__.get("__annotations__", {})
        own = [name for name, text in annotations.items() if name[0] != "_" and not text.startswith("ClassVar")]
        cls._fields = (*(name for name in cls._fields if name not in own), *own)

    def __init__(self, **values: Any) -> None:
        filled = self.__dict__
        for name in self._fields:
            if name in values:
                filled[name] = values.pop(name)
            elif not hasattr(type(self), name):
                raise TypeError(f"{type(self).__name__}: field {name!r} is missing")
        if values:
            raise TypeError(f"{type(self).__name__}: no field {next(iter(values))!r}")

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: {name!r} cannot be set")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def values(self) -> dict[str, Any]:
        """Field names and values, in the order of declaration."""
        return {name: getattr(self, name) for name in self._fields}

    def replace(self, **changes: Any) -> Self:
        """The same record with some fields changed."""
        return type(self)(**{**self.values(), **changes})

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return self.values() == other.values()

    def __hash__(self) -> int:
        return hash((type(self), tuple(self.values().values())))

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={value!r}" for name, value in self.values().items())
        return f"{type(self).__name__}({inner})"

"""Paths and mounts: what an entry of `mounts` and a line of fstab(5) mean alike. Imports next to nothing."""

from __future__ import annotations

from lcinit.config.diagnostics import Unfit, quoted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Final

    from lcinit.config.values import Mount

PATH_MAX: Final = 4096
"""Bytes of a path with its final NUL (limits.h)."""

_BIND: Final = ("bind", "rbind")
_DEFAULTS: Final = ("defaults", "auto", "_netdev")
"""Options that say when and how mount(8) itself works, and are the rule here."""
_NO_USERS: Final = ("user", "users", "owner", "group", "nouser")
"""Who else may mount it: nobody, in a guest."""
_IMPOSSIBLE: Final = {
    "dev": "device nodes come into the guest by devices alone; leave it out",
    "remount": "write the options where the mount is made",
    "move": "mount it at its place at once",
    "loop": "set the loop device up in setup.before",
}
_FSTAB_ONLY: Final = {
    "nofail": "it is for fstab lines; a mount written here must succeed",
    "noauto": "leave the mount out",
    **dict.fromkeys(_NO_USERS, "it is for fstab lines; leave it out"),
}
_TAGS: Final = ("UUID", "LABEL", "PARTUUID", "PARTLABEL", "ID")


def parse_path(text: str) -> str:
    """An absolute path, without doubled or closing slashes. Unfit for a relative one, `..`, or one too long."""
    if not text.startswith("/"):
        raise Unfit(f"{quoted(text)} is a relative path", "write an absolute path")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Unfit(f"{quoted(text)} holds ..", "write the path without ..")
    if len(text.encode("utf-8", "surrogateescape")) >= PATH_MAX:
        raise Unfit("the path is too long", f"write fewer than {PATH_MAX} bytes")
    return "/" + "/".join(parts)


def normalise(mount: Mount, *, fstab: bool = False) -> Mount:
    """The mount without options that mean nothing here; a bind mount has no type, and `rbind` as option when recursive.

    Unfit when it cannot be made: a bind mount without a source, an option of mount(8) that means nothing to the
    kernel, a source that only udev finds. `fstab`: the words that only mean something in fstab(5) are accepted.
    """
    kind, source = mount.type, mount.source
    dropped = (*_DEFAULTS, *(_NO_USERS if fstab else ()))
    options = tuple(o for o in mount.options if o not in dropped and not o.startswith(("x-", "X-", "comment=")))
    refused = _IMPOSSIBLE if fstab else {**_IMPOSSIBLE, **_FSTAB_ONLY}
    for option in options:
        if option in refused:
            raise Unfit(f"the option {quoted(option)} is not possible here", refused[option])
    if mount.target == "/":
        raise Unfit("the target / is the guest root itself", "write it as root")
    bind = any(option in _BIND for option in options)
    if kind == "auto" and not bind:
        raise Unfit('the type "auto" needs the device to be probed', "write the type")
    if kind in (None, "none", "auto", "bind", "rbind"):
        if kind == "none" and not bind:
            raise Unfit('the type "none" without the option bind mounts nothing', "add bind, or write the type")
        if source is None:
            raise Unfit("a bind mount has no source", "write the source, or a type")
        recursive = kind == "rbind" or "rbind" in options
        options = tuple(o for o in options if o not in _BIND) + (("rbind",) if recursive else ())
        return mount.replace(source=_bind_source(source), type=None, options=options)
    if bind:
        raise Unfit(f"a bind mount has no type, and {quoted(kind)} stands here", "leave the type or bind out")
    if source is not None and source.partition("=")[0] in _TAGS and "=" in source:
        raise Unfit(f"{quoted(source)} needs udev to be found", "write the device's path")
    return mount.replace(options=options)


def _bind_source(source: str) -> str:
    try:
        return parse_path(source)
    except Unfit as unfit:
        raise Unfit(f"the source {unfit.what}", unfit.right) from None

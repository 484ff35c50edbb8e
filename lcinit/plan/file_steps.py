"""Steps that make the guest's file systems and what is in them.

Targets are paths inside the guest root, relative to it ("dev/pts"); sources are absolute paths of the boot root.
`side` is "outside" for what is attached before the user namespace exists (and is locked for the guest) and "inside"
for what only a namespace of the guest can hold.
"""

from __future__ import annotations

from lcinit.config.values import IdMap
from lcinit.plan.step import Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Side = Literal["outside", "inside"]


class AttachRoot(Step):
    """The guest root becomes a mount of its own, without device nodes; `id_map` shifts its files' owners."""

    kind = "attach-root"
    path: str
    id_map: IdMap | None = None

    def what(self) -> str:
        """The mount and its flags."""
        return "bind the guest root to itself, nodev" + (", idmapped" if self.id_map else "")

    def where(self) -> str:
        """The guest root."""
        return self.path


class MountNew(Step):
    """A new instance of a file system. `optional`: only where the target exists; else the target is made."""

    kind = "mount"
    fstype: str
    target: str
    side: Side
    options: tuple[tuple[str, str | None], ...] = ()
    attributes: tuple[str, ...] = ()
    optional: bool = False
    aside: bool = False

    def what(self) -> str:
        """The file system and its options."""
        words = [key if value is None else f"{key}={value}" for key, value in self.options]
        text = f"mount {self.fstype} ({', '.join((*self.attributes, *words))})"
        return text + (", if the directory exists" if self.optional else "")

    def where(self) -> str:
        """The target, and on which side of the user namespace."""
        target = f"boot root's /{self.target}" if self.aside else f"/{self.target}"
        return f"{target}, {self.side}"


class MakeNode(Step):
    """A device node in the guest's /dev, owned by the guest's root."""

    kind = "node"
    name: str
    device: tuple[int, int]
    mode: int = 0o666

    def what(self) -> str:
        """Type and numbers."""
        return f"make character device {self.device[0]}:{self.device[1]} mode {self.mode:04o}"

    def where(self) -> str:
        """The node."""
        return f"/dev/{self.name}"


class MakeLink(Step):
    """A symbolic link in the guest's /dev."""

    kind = "link"
    name: str
    to: str

    def what(self) -> str:
        """The link."""
        return f"link to {self.to}"

    def where(self) -> str:
        """Its name."""
        return f"/dev/{self.name}"


class CopyDevices(Step):
    """Nodes of the boot root's /dev that are made again in the guest's. Globs are resolved when it runs."""

    kind = "devices"
    include: tuple[str, ...]
    inherit: bool
    exclude: tuple[str, ...]
    rexclude: tuple[str, ...]

    def what(self) -> str:
        """What is brought in."""
        what = "copy every outer device node" if self.inherit else "copy outer device nodes " + " ".join(self.include)
        less = " ".join((*self.exclude, *(f"/{r}/" for r in self.rexclude)))
        return what + (f", less {less}" if less else "")

    def where(self) -> str:
        """The directory."""
        return "/dev"


class MakeInitctl(Step):
    """The FIFO that the helper serves."""

    kind = "initctl"

    def what(self) -> str:
        """The FIFO."""
        return "make the FIFO that the helper reads"

    def where(self) -> str:
        """Its path in the guest."""
        return "/dev/initctl"


class MakeTargets(Step):
    """Mount points that a later step needs on a file system that may be read-only by then."""

    kind = "targets"
    directories: tuple[str, ...]
    files: tuple[str, ...] = ()

    def what(self) -> str:
        """The targets."""
        return "make mount points " + " ".join(f"/{name}" for name in (*self.directories, *self.files))


class ConsoleStep(Step):
    """What the guest's /dev/console and standard streams are.

    bind: the manager's terminal, bound; own: the same, given to the guest's root; relay: a fresh pty in the guest's
    devpts, relayed by the helper, for an init; a plain command keeps the streams it was started with, because the
    helper dies with PID 1 and could not deliver its last words. `plain`: PID 1 relays, and for a plain command too.
    keep: every init keeps them, and finds no /dev/console to use instead.
    """

    kind = "console"
    how: Literal["bind", "own", "relay", "keep"]
    plain: bool = False

    def what(self) -> str:
        """How it is made."""
        return {
            "bind": "bind the container's terminal",
            "own": "bind the container's terminal, owned by the guest's root",
            "keep": "the guest keeps the streams of PID 1 and has no console",
            "relay": "make a pty that is relayed" + ("" if self.plain else " (a plain command keeps its streams)"),
        }[self.how]

    def where(self) -> str:
        """The node."""
        return "/dev/console"


class MountExtra(Step):
    """One of `mounts` or a line of `fstab`."""

    kind = "mount-extra"
    source: str | None
    target: str
    fstype: str | None
    options: tuple[str, ...]
    id_map: IdMap | None

    def what(self) -> str:
        """Source, type and options."""
        bits = [self.fstype or "bind", *self.options]
        return f"mount {self.source or 'none'} ({', '.join(bits)})" + (", idmapped" if self.id_map else "")

    def where(self) -> str:
        """The target."""
        return f"/{self.target}"


class MountFstab(Step):
    """Every line of an fstab(5) of the boot root, read when the step runs: `setup.before` may write it."""

    kind = "fstab"
    path: str

    def what(self) -> str:
        """The file."""
        return f"mount what {self.path} lists"

    def where(self) -> str:
        """In the guest."""
        return "/"


class MaskPaths(Step):
    """Parts of /proc that a root of the outer user namespace could use against the outside."""

    kind = "mask"
    read_only: tuple[str, ...]
    hidden: tuple[str, ...]

    def what(self) -> str:
        """What becomes read-only and what is hidden."""
        return f"make read-only: {' '.join(self.read_only)}; hide: {' '.join(self.hidden)}"

    def where(self) -> str:
        """The file system."""
        return "/proc"


class HostInfo(Step):
    """What systemd.io/CONTAINER_INTERFACE promises under /run/host, and the machine id.

    `notify`: with the socket on which the guest's init tells PID 1 that it is ready.
    """

    kind = "host-info"
    manager: str
    uuid: str | None
    notify: bool = False

    def what(self) -> str:
        """The files."""
        return (
            f"say container-manager={self.manager}"
            + (f", container-uuid={self.uuid}" if self.uuid else "")
            + (", and hear when it is ready" if self.notify else "")
        )

    def where(self) -> str:
        """The directory."""
        return "/run/host"


class ResolvConf(Step):
    """The guest's resolver configuration is a copy of one of the boot root's files."""

    kind = "resolv-conf"
    source: str

    def what(self) -> str:
        """The source."""
        return f"bind a copy of {self.source}, if there is a regular file"

    def where(self) -> str:
        """The target."""
        return "/etc/resolv.conf"


class SetReadOnly(Step):
    """A mount becomes read-only once everything in it is made."""

    kind = "read-only"
    target: str

    def what(self) -> str:
        """The change."""
        return "make read-only"

    def where(self) -> str:
        """The mount."""
        return f"/{self.target}"

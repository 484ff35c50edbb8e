"""The steps of a plan: data that says what is done, where and why. `boot` has one function for each class.

Targets are paths inside the guest root, relative to it ("dev/pts"); sources are absolute paths of the boot root.
`side` is "outside" for what is attached before the user namespace exists (and is locked for the guest) and "inside"
for what only a namespace of the guest can hold.
"""

from __future__ import annotations

from lcinit.config.values import Command, IdMap, Limit
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, ClassVar, Literal

    Side = Literal["outside", "inside"]
    PhaseName = Literal["setup.before", "setup", "root", "exec.before", "exec"]

PHASES = ("setup.before", "setup", "root", "exec.before", "exec")


class Step(Record):
    """One thing that is done. `kind` names it in JSON; `why` is for the reader of the plan."""

    kind: ClassVar[str] = ""
    phase: PhaseName
    why: str = ""

    def what(self) -> str:
        """What is done, in a few words."""
        return self.kind

    def where(self) -> str:
        """The object it is done to; empty where there is none."""
        return ""

    def facts(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return {"step": self.kind, "what": self.what(), "where": self.where(), **self.values()}


class UnshareMounts(Step):
    """unshare(CLONE_NEWNS), and nothing that is mounted from here on reaches the outside."""

    kind = "unshare-mounts"

    def what(self) -> str:
        """The call."""
        return "new mount namespace, private"

    def where(self) -> str:
        """All mounts."""
        return "/"


class RunCommand(Step):
    """A command of the configuration. `key` is its place there; `place` says in which world it runs."""

    kind = "run"
    key: str
    command: Command
    place: Literal["boot root", "guest namespaces", "outside", "guest root"]
    deadline: float | None = None

    def what(self) -> str:
        """The words of the command, quoted where they need it."""
        return "run " + " ".join(quote(word) for word in self.command.argv)

    def where(self) -> str:
        """The world it runs in."""
        return self.place


class CheckRoot(Step):
    """The guest root must be a directory now; else exit code 71."""

    kind = "check-root"
    path: str

    def what(self) -> str:
        """The check."""
        return "check that the guest root is there"

    def where(self) -> str:
        """The guest root."""
        return self.path


class CheckInit(Step):
    """The guest's init must be there and, where reboot(2) will be refused to it, be able to end without."""

    kind = "check-init"
    command: str
    needs_no_reboot: bool

    def what(self) -> str:
        """The check."""
        return "check the guest's init" + (" (it must end without reboot(2))" if self.needs_no_reboot else "")

    def where(self) -> str:
        """The command."""
        return self.command


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
        what = "every outer device node" if self.inherit else "outer device nodes " + " ".join(self.include)
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
    helper dies with PID 1 and could not deliver its last words.
    """

    kind = "console"
    how: Literal["bind", "own", "relay"]

    def what(self) -> str:
        """How it is made."""
        return {
            "bind": "bind the container's terminal",
            "own": "bind the container's terminal, owned by the guest's root",
            "relay": "a fresh pty relayed by the helper (a plain command keeps its streams)",
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
    """What systemd.io/CONTAINER_INTERFACE promises under /run/host, and the machine id."""

    kind = "host-info"
    manager: str
    uuid: str | None

    def what(self) -> str:
        """The files."""
        return f"say container-manager={self.manager}" + (f", container-uuid={self.uuid}" if self.uuid else "")

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


class TakeCgroup(Step):
    """The guest's cgroup: PID 1's own, a new child of it, or none. `files` are given to the guest with it."""

    kind = "cgroup"
    how: Literal["own", "child", "none"]
    path: str
    files: tuple[str, ...] = ()
    chown: bool = False

    def what(self) -> str:
        """Whose cgroup it is."""
        what = {"own": "use PID 1's cgroup", "child": "make a child cgroup", "none": "no cgroup of its own"}[self.how]
        return what + (", owned by the guest's root" if self.chown else "")

    def where(self) -> str:
        """Its path in the hierarchy."""
        return self.path


class StartHelper(Step):
    """Fork the process that stays outside, and make both undumpable."""

    kind = "helper"

    def what(self) -> str:
        """The process."""
        return "start the helper; no process may be dumped or traced from here on"


class Unshare(Step):
    """unshare(2) of the guest's namespaces in one call."""

    kind = "unshare"
    namespaces: tuple[str, ...]

    def what(self) -> str:
        """The namespaces."""
        return "new namespaces: " + ", ".join(self.namespaces)


class WriteIdMap(Step):
    """The helper writes the maps and reads them back; the leader becomes uid and gid 0 of them."""

    kind = "id-map"
    id_map: IdMap

    def what(self) -> str:
        """Both maps."""

        def text(ranges: tuple[Any, ...]) -> str:
            return ", ".join(f"{r.inside} {r.outside} {r.size}" for r in ranges)

        return f"map users {text(self.id_map.users)}; groups {text(self.id_map.groups)}; become 0:0"


class SetHostname(Step):
    """sethostname(2) in the new UTS namespace."""

    kind = "hostname"
    name: str

    def what(self) -> str:
        """The name."""
        return f"set the host name {self.name}"


class MoveInterfaces(Step):
    """Network interfaces go into the guest's network namespace with addresses, routes, MTU and state."""

    kind = "interfaces"
    names: tuple[str, ...]

    def what(self) -> str:
        """Which."""
        return "move network interfaces " + " ".join(self.names)


class LoopbackUp(Step):
    """The loopback interface of the new network namespace."""

    kind = "loopback"

    def what(self) -> str:
        """The change."""
        return "bring the loopback interface up"


class ChangeRoot(Step):
    """The guest root becomes "/". `initramfs`: pivot_root(2) is refused there, so the root is moved over "/"."""

    kind = "change-root"
    mode: Literal["pivot", "chroot"]
    path: str
    initramfs: bool = False

    def what(self) -> str:
        """The call."""
        if self.mode == "chroot":
            return "chroot into the guest root (the old root stays reachable for a privileged guest)"
        return "move the guest root over /" if self.initramfs else "pivot into the guest root, detach the old one"

    def where(self) -> str:
        """The guest root."""
        return self.path


class DropCapabilities(Step):
    """Capabilities that leave the bounding set, so that no exec of the guest can have them."""

    kind = "capabilities"
    names: tuple[str, ...]

    def what(self) -> str:
        """Which."""
        return "drop from the bounding set: " + " ".join(self.names)


class ExecInit(Step):
    """The clean exec of the guest's init; PID 1 is the guest's from here on."""

    kind = "exec"
    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    limits: tuple[Limit, ...] = ()
    user: str | int | None = None
    group: str | int | None = None
    groups: tuple[str | int, ...] = ()
    cwd: str | None = None
    stop: tuple[tuple[str, str], ...] = ()
    serve_initctl: bool = False

    def what(self) -> str:
        """The words of the command."""
        return "exec " + " ".join(quote(word) for word in self.argv)

    def where(self) -> str:
        """The world."""
        return "PID 1"


def quote(word: str) -> str:
    """The word as a shell would need it, for display."""
    plain = word and all(c.isalnum() or c in "%+,-./:=@_" for c in word)
    return word if plain else "'" + word.replace("'", "'\"'\"'") + "'"

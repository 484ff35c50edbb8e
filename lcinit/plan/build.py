"""Configuration + machine → plan. The one place that turns what is wanted into steps.

The order of the mounts is a defence: what is attached before the user namespace exists is locked for the guest
(mount_namespaces(7), "Restrictions on mount namespaces"), so everything that can be is attached then, with its final
flags; only what belongs to a namespace of the guest is mounted inside.
"""

from __future__ import annotations

from lcinit.config.values import Command, Config
from lcinit.errors import ConfigError
from lcinit.plan import steps as s
from lcinit.plan.cgroup import cgroup_step
from lcinit.plan.defaults import DEFAULT_DROPPED, OLDEST_KERNEL, PROC_HIDDEN, PROC_READ_ONLY
from lcinit.plan.devices import device_steps
from lcinit.plan.facts import Machine
from lcinit.plan.first import ENDS_IN_PANIC, first_steps
from lcinit.plan.guest import guest_environment, guest_root_owner, root_of
from lcinit.plan.inits import refuse_init
from lcinit.plan.managers import MANAGERS
from lcinit.plan.network import interfaces_to_move
from lcinit.plan.rebooting import answered, note, refusal
from lcinit.plan.supervision import Supervision, notes, supervision
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Plan(Record):
    """The steps in order, and what the reader should know: `notes` explain, `warnings` ask for attention.

    `supervision` is None for a handoff.
    """

    steps: tuple[s.Step, ...]
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    manager: str = "generic"
    supervision: Supervision | None = None


def build(config: Config, machine: Machine, argv: tuple[str, ...]) -> Plan:
    """The plan that hands over to `argv`, or stays with it.

    Raises ConfigError for what cannot be done here, before anything was done.
    """
    if machine.kernel < OLDEST_KERNEL:
        major, minor = machine.kernel
        raise ConfigError(
            f"this is Linux {major}.{minor}; lcinit needs 5.12 or later (mount_setattr(2))", hint="run a newer kernel"
        )
    return _Builder(config, machine).build(argv)


class _Builder:
    """Collects the steps; one method a part."""

    def __init__(self, config: Config, machine: Machine) -> None:
        self.config = config
        self.machine = machine
        self.steps: list[s.Step] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self.owner = guest_root_owner(config)
        self.set_up = config.setup.mode != "none"
        self.root = root_of(config)
        self.manager = config.setup.mode if config.setup.mode in MANAGERS else machine.manager
        self.supervision = supervision(config, machine, self.manager)
        self.nested = self.supervision is not None and self.supervision.pid == "nested"
        self.shared = self.supervision is not None and not self.nested
        self.services = config.services is not None
        self.refusal = refusal(config, machine, self.supervision)
        self.new = self._new_namespaces()

    def _new_namespaces(self) -> frozenset[str]:
        pid = {"pid"} if self.nested else set()
        if not self.set_up:
            return frozenset(pid | ({"mount"} if pid else set()))
        wanted = self.config.namespaces.values()
        names = {name for name in ("uts", "ipc", "cgroup", "network") if wanted[name]}
        # a mount namespace of its own in any case: the helper stays in the other one, with the boot root
        return frozenset(names | pid | {"mount"} | ({"user"} if self.config.id_map else set()))

    def build(self, argv: tuple[str, ...]) -> Plan:
        config = self.config
        self._refuse_init()
        if not self.machine.can("sys_admin"):
            self.warnings.append("this process has no CAP_SYS_ADMIN: init would fail here (`lcinit doctor` tells more)")
        first = first_steps(config, self.machine, self.root)
        if self.nested:
            # what the machine's first process lacks it lacks too while it stays
            self.steps += first
            why = "it prepares one start of the guest and ends, and every mount with it"
            self.steps.append(s.ForkBuilder(phase="setup.before", why=why))
        if self.nested or self.set_up or config.root.mode != "none":
            self.steps.append(s.UnshareMounts(phase="setup.before", why="ending it undoes every mount"))
        if not self.nested:
            self.steps += first
        self._commands("setup.before", "setup.before", config.setup.before, "boot root")
        if self.root != "/":
            self.steps.append(s.CheckRoot(phase="setup", path=self.root))
        check = self._check_init(argv)
        if not self.set_up:
            self.steps += check
        if self.services and not self.set_up:
            self._cgroup()
        if self.set_up:
            self._outside()
            self.steps += check  # now that all is mounted: the init may come with a mount
            self._namespaces()
            self._inside()
        elif self.nested:
            self._namespaces()
            self._mount_proc("inside", "the PID namespace is new")
        elif config.setup.after or config.setup.outside:
            key = "setup.after" if config.setup.after else "setup.outside"
            raise ConfigError(f"{key}: setup.mode none makes no namespaces", hint="use setup.before or exec.before")
        self._commands("setup", "setup.after", config.setup.after, "guest namespaces")
        self._commands("setup", "setup.outside", config.setup.outside, "outside")
        self._change_root()
        self._commands("exec.before", "exec.before", config.exec.before, "guest root")
        self._exec(argv)
        if self.supervision is not None:
            self.notes += notes(self.supervision, config, self.manager)
        return Plan(
            steps=tuple(self.steps),
            notes=tuple(self.notes),
            warnings=tuple(self.warnings),
            manager=self.manager,
            supervision=self.supervision,
        )

    def _refuse_init(self) -> None:
        guest = self.machine.guest
        if guest is not None:
            refuse_init(guest.init, guest.resolved, because=self.refusal, shared=self.shared)

    def _check_init(self, argv: tuple[str, ...]) -> list[s.Step]:
        step = s.CheckInit(
            phase="setup",
            command=argv[0] if argv else "",
            needs_no_reboot=bool(self.refusal),
            shared=self.shared,
            why=self.refusal,
        )
        return [step] if argv else []

    def _commands(self, phase: s.PhaseName, key: str, commands: tuple[Command, ...], place: str) -> None:
        deadline = self.config.setup.timeout if key.startswith("setup") else None
        for index, command in enumerate(commands):
            self.steps.append(
                s.RunCommand(
                    phase=phase,
                    key=f"{key}[{index}]",
                    command=command,
                    place=place,  # type: ignore[arg-type]
                    deadline=deadline,
                )
            )

    def _add(self, step: s.Step) -> None:
        self.steps.append(step)

    def _outside(self) -> None:
        config = self.config
        if self.root != "/":
            why = "a device node in the guest's own files must not open an outer device"
            id_map = config.id_map if config.root.id_map else None
            self._add(s.AttachRoot(phase="setup", path=self.root, id_map=id_map, why=why))
        self._cgroup()
        owner = (("uid", str(self.owner[0])), ("gid", str(self.owner[1])))
        if "pid" not in self.new:
            self._mount_proc("outside", "PID namespace is not new")
        self._mount("tmpfs", "run", "outside", (("mode", "755"), *owner), ("nosuid", "nodev"), optional=True)
        self._mount("tmpfs", "dev", "outside", (("mode", "755"), ("size", "4m"), *owner), ("nosuid", "noexec"))
        self._devices(owner)
        for fstype, target, namespace, attributes in (
            ("sysfs", "sys", "network", ("ro", "nosuid", "nodev", "noexec")),
            ("mqueue", "dev/mqueue", "ipc", ("nosuid", "nodev", "noexec")),
        ):
            if namespace not in self.new and namespace in self.machine.foreign:
                self._bind_outer(target)
            elif namespace not in self.new:
                self._mount(fstype, target, "outside", attributes=attributes, why=f"{namespace} namespace is shared")
        if "cgroup" not in self.new:
            self._mount_cgroup("outside")
        manager = self.machine.container or "lcinit"
        uuid = self.machine.container_uuid
        self._add(s.HostInfo(phase="setup", manager=manager, uuid=uuid, notify=self.nested))
        for mount in config.mounts:
            self._add(
                s.MountExtra(
                    phase="setup",
                    source=mount.source,
                    target=mount.target.strip("/"),
                    fstype=mount.type,
                    options=mount.options,
                    id_map=mount.id_map,
                )
            )
        if config.fstab is not None:
            self._add(s.MountFstab(phase="setup", path=config.fstab))
        self._resolv_conf()
        if config.id_map is None and "pid" not in self.new:
            self._mask_paths()
        targets = [t for t, n in (("proc", "pid"), ("sys", "network"), ("dev/mqueue", "ipc")) if n in self.new]
        self._add(s.MakeTargets(phase="setup", directories=(*targets, "dev/pts")))
        if config.devices.read_only:
            self._add(s.SetReadOnly(phase="setup", target="dev", why="devices.read_only"))
        if config.root.read_only and self.root != "/":
            self._add(s.SetReadOnly(phase="setup", target="", why="root.read_only"))
        # a user namespace is let mount its own only while one is fully visible (mount_namespaces(7))
        for fstype, target, namespace in (("proc", "proc", "pid"), ("sysfs", "sys", "network")):
            if namespace in self.new and namespace not in self.machine.foreign:
                why = "the guest may mount its own only while one is fully visible"
                self._mount(fstype, target, "outside", aside=True, why=why)

    def _bind_outer(self, target: str) -> None:
        """The outer mount and all below it, read-only, where a new one is not permitted."""
        self._add(s.MakeTargets(phase="setup", directories=(target,)))
        self._add(
            s.MountExtra(
                phase="setup",
                source=f"/{target}",
                target=target,
                fstype=None,
                options=("rbind", "ro", "nosuid", "nodev", "noexec"),
                id_map=None,
                why="what it shows belongs to a user namespace above this one",
            )
        )

    def _mask_paths(self) -> None:
        why = "the guest's root is the machine's"
        self._add(s.MaskPaths(phase="setup", read_only=PROC_READ_ONLY, hidden=PROC_HIDDEN, why=why))

    def _mount_proc(self, side: s.Side, why: str = "") -> None:
        self._mount("proc", "proc", side, attributes=("nosuid", "nodev", "noexec"), why=why)

    def _mount(
        self,
        fstype: str,
        target: str,
        side: s.Side,
        options: tuple[tuple[str, str | None], ...] = (),
        attributes: tuple[str, ...] = (),
        *,
        optional: bool = False,
        aside: bool = False,
        why: str = "",
    ) -> None:
        self._add(
            s.MountNew(
                phase="setup",
                fstype=fstype,
                target=target,
                side=side,
                options=options,
                attributes=attributes,
                optional=optional,
                aside=aside,
                why=why,
            )
        )

    def _devices(self, owner: tuple[tuple[str, str], ...]) -> None:
        self.steps += device_steps(self.config, owner)
        if self.config.initctl is True and self.supervision is None:
            self._add(s.MakeInitctl(phase="setup"))
        console = self.machine.console
        if console.terminal and console.own and MANAGERS[self.manager].private_terminal and not self.nested:
            how = "own" if self.config.id_map else "bind"
            why = f"{console.name} belongs to this container alone"
            self._add(s.ConsoleStep(phase="setup", how=how, why=why))  # type: ignore[arg-type]
            self.relay = False
        elif console.lent:
            self._add(s.ConsoleStep(phase="setup", how="keep", why="it was asked for"))
            self.relay = False
        else:
            self._add(s.MakeTargets(phase="setup", directories=(), files=("dev/console",)))
            self.relay = True

    def _cgroup(self) -> None:
        step = cgroup_step(self.machine, chown=self.config.id_map is not None, leaf=self.nested)
        self.owned_cgroup = step.how != "none"
        if not self.owned_cgroup:
            self.notes.append(f"the guest has no cgroup of its own: {step.why}")
        self._add(step)

    def _mount_cgroup(self, side: s.Side) -> None:
        attributes = ("nosuid", "nodev", "noexec") if self.owned_cgroup else ("ro", "nosuid", "nodev", "noexec")
        if self.machine.cgroup is not None:
            self._mount("cgroup2", "sys/fs/cgroup", side, attributes=attributes)

    def _resolv_conf(self) -> None:
        wanted = self.config.network.resolv_conf
        if wanted == "keep":
            return
        if wanted != "auto":
            self._add(s.ResolvConf(phase="setup", source=wanted, why="network.resolv_conf"))
            return
        moved, _ = interfaces_to_move(self.config, self.machine)
        if self.machine.resolv_conf and self.root != "/" and (moved or "network" not in self.new):
            why = "the guest uses the boot root's network"
            self._add(s.ResolvConf(phase="setup", source="/etc/resolv.conf", why=why))

    def _namespaces(self) -> None:
        config = self.config
        order = [n for n in ("user", "mount", "pid", "uts", "ipc", "network", "cgroup") if n in self.new]
        if self.nested:
            why = "its parent is PID 1; the builder is its helper"
            self._add(s.CloneLeader(phase="setup", namespaces=tuple(n for n in order if n != "cgroup"), why=why))
        else:
            self._add(s.StartHelper(phase="setup", why="it does what needs privilege outside"))
            self._add(s.Unshare(phase="setup", namespaces=tuple(order)))
        if config.id_map is not None:
            self._add(s.WriteIdMap(phase="setup", id_map=config.id_map))
        if self.nested and "cgroup" in self.new:
            why = "its root is the cgroup of whoever makes it: the leader, which is in the guest's"
            self._add(s.Unshare(phase="setup", namespaces=("cgroup",), why=why))

    def _inside(self) -> None:
        config = self.config
        if "pid" in self.new:
            self._mount_proc("inside")
            if config.id_map is None:
                self._mask_paths()
        if config.hostname is not None:
            if "uts" not in self.new:
                raise ConfigError("hostname: needs namespaces.uts: true; else it would rename the outside")
            self._add(s.SetHostname(phase="setup", name=config.hostname))
        if "network" in self.new:
            moved, reason = interfaces_to_move(config, self.machine)
            self.notes.append(f"network interfaces moved: {' '.join(moved) or 'none'} ({reason})")
            if config.network.loopback:
                self._add(s.LoopbackUp(phase="setup"))
            if moved:
                self._add(s.MoveInterfaces(phase="setup", names=moved, why=reason))
            self._mount("sysfs", "sys", "inside", attributes=("ro", "nosuid", "nodev", "noexec"))
        if "ipc" in self.new:
            self._mount("mqueue", "dev/mqueue", "inside", attributes=("nosuid", "nodev", "noexec"))
        if "cgroup" in self.new:
            self._mount_cgroup("inside")
        tty = (("gid", "5"),) if self.config.id_map is None or self.config.id_map.outer_group(5) is not None else ()
        options = (("newinstance", None), ("ptmxmode", "0666"), ("mode", "0620"), *tty)
        self._mount("devpts", "dev/pts", "inside", options, ("nosuid", "noexec"))
        if self.relay:
            why = "the terminal is not known to be this container's own" if self.machine.console.terminal else ""
            if self.nested:
                why = "a pty of the guest's own, which PID 1 relays"
            plain = self.nested and self.machine.console.terminal
            self._add(s.ConsoleStep(phase="setup", how="relay", plain=plain, why=why or "there is no terminal"))

    def _change_root(self) -> None:
        mode = self.config.root.mode
        if mode == "none" or self.root == "/":
            return
        if mode == "chroot":
            self.warnings.append("root.mode chroot: a privileged guest can leave it; pivot is safe")
        self._add(s.ChangeRoot(phase="root", mode=mode, path=self.root))

    def _exec(self, argv: tuple[str, ...]) -> None:
        config = self.config
        if self.set_up:
            dropped = [n for n in DEFAULT_DROPPED if n not in config.capabilities.keep]
            dropped += [n for n in config.capabilities.drop if n not in dropped]
            self._add(s.DropCapabilities(phase="root", names=tuple(dropped)))
            # exec.before runs in the guest root: it gets what the guest gets, and no more
            index = next((i for i, step in enumerate(self.steps) if step.phase == "exec.before"), len(self.steps) - 1)
            self.steps.insert(index, self.steps.pop())
        answer = answered(config, self.machine, self.supervision, argv[0] if argv else "")
        if answer is not None:
            self._add(answer)
        elif self.refusal and self.supervision is None:
            (self.warnings if self.machine.no_listener else self.notes).append(note(self.refusal))
            if self.machine.first:
                self.warnings.append(ENDS_IN_PANIC)
        step = s.KeepServices if self.services else s.KeepCommand if self.shared else s.ExecInit
        more: dict[str, Any] = {}
        if config.services is not None:
            more = {"runlevel": config.runlevel, "services": tuple(part.name for part in config.services)}
        self._add(
            step(
                phase="exec",
                argv=argv,
                environment=guest_environment(config, self.machine, self.manager, notify=self.nested and self.set_up),
                limits=config.limits,
                user=config.exec.user,
                group=config.exec.group,
                groups=config.exec.groups,
                cwd=config.exec.cwd,
                stop=config.exec.stop,
                **more,
            )
        )

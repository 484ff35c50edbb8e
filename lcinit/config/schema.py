"""The whole configuration file, declared once: what it is read by, and what `lcinit schema` prints."""

from __future__ import annotations

from lcinit.config.commands import COMMAND, COMMANDS, ENVIRONMENT, EXEC_COMMAND, GROUP, USER
from lcinit.config.compound import Field, Fields, ListOf, MapOf
from lcinit.config.diagnostics import Unfit
from lcinit.config.document import MAP, NULL
from lcinit.config.idmaps import ID_MAP, MOUNT_ID_MAP
from lcinit.config.managers import MODES
from lcinit.config.mounts import normalise
from lcinit.config.names import (
    CAPABILITY,
    DEVICE,
    DURATION,
    EXPRESSION,
    GLOB,
    HOSTNAME,
    INTERFACE,
    LIMIT,
    NOTHING,
    PATH,
    RLIMITS,
    ROOT_PATH,
    SIGNAL,
    account,
    make_limit,
)
from lcinit.config.shapes import INVALID, Anything, Choice, Exactly, Flag, Forms, Number, Text, Then
from lcinit.config.values import (
    Capabilities,
    Command,
    Config,
    Devices,
    Exec,
    Log,
    Mount,
    Namespaces,
    Network,
    Root,
    Setup,
    Shutdown,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

    from lcinit.config.document import Node
    from lcinit.config.shapes import Reading

_NO_GUEST_ROOT: Final = Root(path=None, mode="none")

_ROOT: Final = Forms(
    "an absolute path, {path, mode, read_only, id_map}, or null",
    Exactly(None, _NO_GUEST_ROOT),
    Then(ROOT_PATH, lambda path: Root(path=path)),
    Fields(
        Root,
        "{path, mode, read_only, id_map}",
        Field(
            "path", Forms("an absolute path or null", NOTHING, ROOT_PATH), "The guest root; null keeps the boot root."
        ),
        Field(
            "mode",
            Forms("pivot, chroot, none or null", Exactly(None, "none"), Choice(("pivot", "chroot", "none"))),
            "How the guest root becomes /; null is none.",
        ),
        Field("read_only", Flag(), "Mount the guest root read-only."),
        Field("id_map", Flag(), "Mount the guest root idmapped, by the same ranges as id_map."),
        finish=lambda values, _node, _path, _reading: Root(**_root_values(values)),
    ),
)


def _root_values(values: dict[str, Any]) -> dict[str, Any]:
    """A root without a path has no mode but none."""
    return {"mode": "none", **values} if values.get("path", "") is None else values


_DEVICES: Final = Fields(
    Devices,
    "{include, inherit, exclude, rexclude, read_only}",
    Field("include", ListOf(DEVICE, "a list of names", single=True), "Outer nodes to bring in beside the fixed list."),
    Field("inherit", Flag(), "Bring in every outer node."),
    Field(
        "exclude", ListOf(DEVICE, "a list of names", single=True), "Names and globs that inherit and include leave out."
    ),
    Field("rexclude", ListOf(EXPRESSION, "a list of regular expressions", single=True), "The same as expressions."),
    Field("read_only", Flag(), "Make /dev read-only when it is complete."),
)
_NAMESPACES: Final = Fields(
    Namespaces,
    "{uts, ipc, cgroup, network}",
    Field("uts", Flag(), "A host name of the guest's own."),
    Field("ipc", Flag(), "System V IPC and POSIX message queues of the guest's own."),
    Field("cgroup", Flag(), "Make the guest's cgroup the root of what it sees."),
    Field("network", Flag(), "Network interfaces of the guest's own."),
)
_NETWORK: Final = Fields(
    Network,
    "{interfaces, loopback, resolv_conf}",
    Field(
        "interfaces",
        Forms(
            "auto, all, none, or a list of names", Choice(("auto", "all", "none")), ListOf(INTERFACE, "a list of names")
        ),
        "Outer interfaces that move to the guest.",
    ),
    Field("loopback", Flag(), "Bring up lo."),
    Field(
        "resolv_conf",
        Forms("auto, keep, or an absolute path", Choice(("auto", "keep")), PATH),
        "What the guest's /etc/resolv.conf is.",
    ),
)
_OPTIONS: Final = Forms(
    "a list of mount options, or text with commas between",
    ListOf(Text("a mount option", "[^,\n]+"), "a list of mount options"),
    Then(Text("mount options", "[^,\n]+(?:,[^,\n]+)*"), lambda text: tuple(text.split(","))),
)


def _make_mount(values: dict[str, Any], node: Node, path: str, reading: Reading) -> Any:
    if "id_map" in values:
        values["id_map"], _ = values["id_map"]
    try:
        return normalise(Mount(**values))
    except Unfit as unfit:
        return reading.problem(node, path, unfit.what, unfit.right)


_MOUNT: Final = Fields(
    Mount,
    "{source, target, type, options, id_map}",
    Field("source", Forms("text or null", NOTHING, Text("a path or a source")), "What to mount, of the outside."),
    Field("target", PATH, "Where to, in the guest root.", required=True),
    Field("type", Forms("a type or null", NOTHING, Text("a type", "[a-zA-Z0-9._-]+")), "Its type; null: a bind mount."),
    Field("options", _OPTIONS, "Options, as mount(8) names them."),
    Field("id_map", MOUNT_ID_MAP, "An idmapped mount with this map."),
    finish=_make_mount,
)

_CAPABILITIES: Final = Fields(
    Capabilities,
    "{drop, keep}",
    Field("drop", ListOf(CAPABILITY, "a list of capabilities"), "Taken out of the bounding set beside the defaults."),
    Field("keep", ListOf(CAPABILITY, "a list of capabilities"), "Left in, though dropped by default."),
)
_SETUP_FIELDS: Final = Fields(
    Setup,
    "{mode, before, after, outside, timeout}",
    Field(
        "mode",
        Forms("a mode or null", Exactly(None, "none"), Choice(MODES)),
        "How the manager is treated: auto recognises it, none sets nothing up.",
    ),
    Field("before", COMMANDS, "In the boot root, before anything is unshared but the mount namespace."),
    Field("after", COMMANDS, "In the new namespaces, at the guest root, before it becomes /."),
    Field("outside", COMMANDS, "Outside the new namespaces, with LCINIT_GUEST_PID in the environment."),
    Field("timeout", Forms("a duration or null", NOTHING, DURATION), "For all of these commands together."),
)
_SETUP: Final = Forms(
    "a mode, a command, a list of commands, or {mode, before, after, outside, timeout}",
    Exactly(None, Setup(mode="none")),
    Exactly(False, Setup(mode="none")),
    Then(Choice(MODES), lambda mode: Setup(mode=mode)),
    Then(COMMAND.forms[0], lambda command: Setup(mode="none", before=(command,))),
    Then(ListOf(COMMAND, "a list of commands"), lambda commands: Setup(mode="none", before=commands)),
    _SETUP_FIELDS,
)


def _make_exec(values: dict[str, Any], node: Node, path: str, reading: Reading) -> Any:
    command: Command | None = values.pop("command", None)
    if command is not None:
        values.update(command=command.argv, command_given=True, environment=command.environment, cwd=command.cwd)
        for key in ("user", "group"):
            inner = getattr(command, key)
            if inner is None:
                continue
            if values.get(key) is not None:
                place = node.get(key) or node
                what = f"stands here and in {path}.command too"
                return reading.problem(place, f"{path}.{key}", what, "keep one of them")
            values[key] = inner
    return Exec(**values)


def _plain_exec(command: Command) -> Exec:
    return Exec(command=command.argv, command_given=True)


_EXEC_FIELDS: Final = Fields(
    Exec,
    "{before, command, mode, …}",
    Field("before", COMMANDS, "In the guest root, before the guest's init."),
    Field("command", EXEC_COMMAND, "The guest's init."),
    Field("mode", Choice(("handoff", "tolerant")), "Who stays PID 1: the guest's init, or lcinit."),
    Field("pid", Choice(("nested", "shared")), "Tolerant: the guest has a PID namespace of its own, or lcinit's."),
    Field("user", USER, "The user that the command runs as."),
    Field("group", GROUP, "The group that it runs as."),
    Field("groups", ListOf(account("a group's name or id"), "a list of groups"), "Its supplementary groups."),
    Field(
        "on_reboot",
        Choice(("auto", "restart", "propagate", "exit")),
        "Tolerant: what a reboot of the guest does.",
    ),
    Field("on_exit", Choice(("exit", "restart")), "Tolerant: what it does when the guest ends by itself."),
    Field("on_failure", Choice(("exit", "shell")), "What a failed phase does; shell: a rescue shell on the console."),
    Field("forward_to", Choice(("process", "group")), "Tolerant, shared: signals go to the command, or its group."),
    Field(
        "stop",
        MapOf(Choice(("poweroff", "halt", "reboot")), SIGNAL, "a mapping of poweroff, halt and reboot to signals"),
        "The signals that ask this guest's init, where they are not recognised.",
    ),
    finish=_make_exec,
    empty=False,
)
_EXEC: Final = Forms(
    "a command, or {before, command, …}",
    *(Then(form, _plain_exec) for form in EXEC_COMMAND.forms[:2]),
    _EXEC_FIELDS,
)
_SHUTDOWN: Final = Fields(
    Shutdown,
    "{timeout, after}",
    Field(
        "timeout",
        Forms("a duration or auto", Then(Choice(("auto",)), lambda _: None), DURATION),
        "Tolerant: from the request to stop to the end of everything.",
    ),
    Field("after", COMMANDS, "Tolerant, nested: in the boot root, when the guest has ended."),
)
_LOG: Final = Fields(
    Log,
    "{level, format, file}",
    Field("level", Choice(("debug", "info", "warning", "error")), "The least level that is said."),
    Field("format", Choice(("text", "json")), "Lines for people, or one JSON object a line."),
    Field("file", Forms("an absolute path or null", NOTHING, PATH), "Where to beside the console."),
)
_RUNLEVEL: Final = Forms(
    "a runlevel from 1 to 5, or S",
    Then(Number(1, 5, "a runlevel from 1 to 5, or S"), str),
    Choice({"S": "1", "s": "1"}),
)


class _Services(MapOf):
    """Services by name. Their schema takes as long to import as this one, and most configurations have none."""

    kinds: tuple[str, ...] = (MAP, NULL)

    def __init__(self) -> None:
        super().__init__(Anything(), Anything(), "a mapping of services' names to {command, …} or null")

    def read(self, node: Node, path: str, reading: Reading) -> Any:
        if node.kind == NULL:
            return None
        if node.kind != MAP:
            return self.mismatch(node, path, reading)
        from lcinit.config.service_names import SERVICE_NAME
        from lcinit.config.service_schema import read_inline

        parts = []
        for name_node, value_node in node.value:
            at = f"{path}.{name_node.value}"
            name = SERVICE_NAME.read(name_node, at, reading)
            parts.append(INVALID if name is INVALID else read_inline(name, value_node, at, reading))
        return INVALID if INVALID in parts else tuple(parts)

    def json(self) -> dict[str, Any]:
        from lcinit.config.service_names import SERVICE_NAME
        from lcinit.config.service_schema import SERVICE

        service = {"anyOf": [SERVICE.json(), {"type": "null"}]}
        return {"type": ["object", "null"], "propertyNames": SERVICE_NAME.json(), "additionalProperties": service}


def _make_config(values: dict[str, Any], _node: Node, _path: str, _reading: Reading) -> Config:
    if "id_map" in values:
        values["id_map"], values["allow_outer_root"] = values["id_map"]
    return Config(**values)


CONFIG: Final = Fields(
    Config,
    "the keys of a configuration",
    Field("root", _ROOT, "The guest root and how it becomes /."),
    Field("id_map", ID_MAP, "The guest's user namespace; false: none."),
    Field("initctl", Forms("true, false or auto", Flag(), Choice(("auto",))), "Serve /dev/initctl to the guest."),
    Field("devices", _DEVICES, "The guest's /dev."),
    Field("namespaces", _NAMESPACES, "Which namespaces are made for the guest."),
    Field("hostname", Forms("a host name or null", NOTHING, HOSTNAME), "The guest's host name."),
    Field("network", _NETWORK, "The guest's network."),
    Field("mounts", ListOf(_MOUNT, "a list of mounts"), "Further mounts in the guest root."),
    Field("fstab", Forms("an absolute path or null", NOTHING, PATH), "A file of the boot root in fstab(5) form."),
    Field("capabilities", _CAPABILITIES, "Changes to the default bounding set."),
    Field(
        "limits",
        MapOf(Choice(RLIMITS), LIMIT, "a mapping of resources to limits", make_limit),
        "Resource limits of the guest, setrlimit(2).",
    ),
    Field("environment", ENVIRONMENT, "Variables of the guest's init."),
    Field(
        "pass_environment",
        Forms("auto, all, none, or a list of names", Choice(("auto", "all", "none")), ListOf(GLOB, "a list of names")),
        "Which of the manager's variables the guest gets.",
    ),
    Field("setup", _SETUP, "What is done before the guest root is entered."),
    Field("exec", _EXEC, "What runs in the guest root."),
    Field("shutdown", _SHUTDOWN, "How the guest is ended."),
    Field("services", _Services(), "Tolerant, shared: services, each over its file in the guest and the catalogue."),
    Field("services_dir", PATH, "The directory of the guest's own service files, in the guest."),
    Field("runlevel", _RUNLEVEL, "The runlevel whose services start."),
    Field("log", _LOG, "lcinit's own messages."),
    finish=_make_config,
)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a configuration: all but what takes arithmetic, as overlaps of id ranges."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lcinit configuration, /mnt/init.yml",
        **CONFIG.json(),
        "type": ["object", "null"],
    }

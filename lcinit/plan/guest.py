"""What the guest is given beside its root: command, environment and owner ids. Pure."""

from __future__ import annotations

from lcinit.config.values import Config
from lcinit.errors import UsageError
from lcinit.plan.facts import Machine
from lcinit.plan.managers import COMMON_ENVIRONMENT, MANAGERS

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def root_of(config: Config) -> str:
    """The guest root's path; "/" where the boot root is kept."""
    return config.root.path if config.root.mode != "none" and config.root.path else "/"


def guest_root_owner(config: Config) -> tuple[int, int]:
    """The outer uid and gid of the guest's root."""
    if config.id_map is None:
        return 0, 0
    user, group = config.id_map.outer_user(0), config.id_map.outer_group(0)
    if user is None or group is None:
        raise AssertionError("a validated id map has ids for the guest's root")
    return user, group


def command(config: Config, arguments: tuple[str, ...], *, override_exec: bool) -> tuple[str, ...]:
    """The guest's init: `exec.command` and the arguments of `lcinit init`, by its rules. Raises UsageError."""
    if override_exec:
        if not arguments:
            raise UsageError("--override-exec needs the command to run", hint="give it after --")
        return arguments
    if config.services is not None and not config.exec.command_given:
        return arguments  # none: there are only services
    if arguments and not config.exec.command_given:
        return arguments
    return (*config.exec.command, *arguments)


NOTIFY_SOCKET = "/run/host/notify"


def guest_environment(
    config: Config, machine: Machine, manager: str, *, notify: bool = False
) -> tuple[tuple[str, str], ...]:
    """The whole environment of the guest's init, sorted: nothing reaches it that is not named here.

    `notify`: its readiness is told to lcinit, and the manager's own socket is out of its reach.

    `container` keeps the manager's value, and is "lcinit" where there is none (systemd.io/CONTAINER_INTERFACE).
    """
    wanted = config.pass_environment
    if wanted == "auto":
        wanted = "all" if config.root.mode == "none" else (*COMMON_ENVIRONMENT, *MANAGERS[manager].environment)
    if wanted == "all":
        wanted = ("*",)
    elif wanted == "none":
        wanted = ()
    passed = {name: value for name, value in machine.environment if any(matches(name, glob) for glob in wanted)}
    environment = {"PATH": DEFAULT_PATH, "TERM": "linux"}
    environment.update(passed)
    environment["container"] = machine.container or "lcinit"
    if notify:
        environment["NOTIFY_SOCKET"] = NOTIFY_SOCKET
    if machine.container_uuid:
        environment["container_uuid"] = machine.container_uuid
    environment.update(config.environment)
    environment.update(config.exec.environment)
    return tuple(sorted(environment.items()))


def matches(name: str, glob: str) -> bool:
    """Whether a shell glob covers the name. `re` is only imported for a glob that is more than a prefix."""
    if not any(c in glob for c in "*?["):
        return name == glob
    if glob.endswith("*") and not any(c in glob[:-1] for c in "*?["):
        return name.startswith(glob[:-1])
    from fnmatch import fnmatchcase

    return fnmatchcase(name, glob)

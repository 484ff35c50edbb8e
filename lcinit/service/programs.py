"""What is started for a service: its main program and its commands, as values for the spawner. Pure but for rlimits'
numbers.
"""

from __future__ import annotations

import resource

from lcinit.service.notify import PATH as NOTIFY
from lcinit.supervisor.program import Account, Program

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from lcinit.config.service_values import Service
    from lcinit.config.values import Command, Limit


class Streams:
    """Descriptors for stdout and stderr of what belongs to a service, and the directory of its cgroup (-1: none)."""

    def __init__(self, output: int, cgroup: int) -> None:
        self.output = output
        self.cgroup = cgroup


def environment_of(service: Service, base: Mapping[str, str]) -> dict[str, str]:
    """The variables of its main program, but for those of its files and of its user's account."""
    found = dict(base)
    found["LCINIT_SERVICE"] = service.name
    if service.type == "notify" or service.watchdog is not None:
        found["NOTIFY_SOCKET"] = NOTIFY
    if service.watchdog is not None:
        found["WATCHDOG_USEC"] = str(int(service.watchdog * 1_000_000))
    found.update(service.environment)
    return found


def main_program(
    service: Service,
    base: Mapping[str, str],
    streams: Streams,
    limits: tuple[tuple[int, int | None, int | None], ...],
    descriptors: tuple[tuple[int, int], ...] = (),
) -> Program:
    """Its main process. `limits` are those of the guest, which its own go over."""
    return Program(
        argv=service.command,
        environment=tuple(environment_of(service, base).items()),
        environment_files=service.environment_file,
        account=_account(service.user, service.group, service.groups),
        cwd=service.cwd or "/",
        stdout=streams.output,
        stderr=streams.output,
        limits=(*limits, *limits_of(service.limits)),
        umask=service.umask,
        nice=service.nice,
        oom_score_adj=service.oom_score_adj,
        capabilities=service.capabilities,
        no_new_privileges=service.no_new_privileges,
        private_tmp=service.private_tmp,
        read_only_paths=service.read_only_paths,
        cgroup=streams.cgroup if streams.cgroup >= 0 else None,
        tty=service.tty,
        descriptors=descriptors,
    )


def command_program(
    command: Command,
    main: Program,
    extra: Mapping[str, str],
    stdin: int | None,
) -> Program:
    """One of a service's commands: as its main process, but for what the command says itself. `extra` tells of that.

    A command with a user of its own is not held to the capabilities of the service.
    """
    environment = dict(main.environment)
    environment.pop("NOTIFY_SOCKET", None)
    environment.pop("WATCHDOG_USEC", None)
    environment.update(extra)
    environment.update(command.environment)
    own = command.user is not None or command.group is not None
    return main.replace(
        argv=command.argv,
        environment=tuple(environment.items()),
        account=_account(command.user, command.group, ()) if own else main.account,
        capabilities=None if own else main.capabilities,
        cwd=command.cwd or main.cwd,
        stdin=stdin,
        tty=None,
        descriptors=(),
    )


def limits_of(limits: tuple[Limit, ...]) -> tuple[tuple[int, int | None, int | None], ...]:
    """As setrlimit(2) takes them."""
    return tuple((getattr(resource, f"RLIMIT_{each.name.upper()}"), each.soft, each.hard) for each in limits)


def _account(user: str | int | None, group: str | int | None, groups: tuple[str | int, ...]) -> Account | None:
    return None if user is None and group is None and not groups else Account(user=user, group=group, groups=groups)

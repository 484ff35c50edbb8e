"""What to start, as values: whoever forks it, PID 1 itself or the spawner, makes the same process of it."""

from __future__ import annotations

from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal


class Identity(Record):
    """Whom a program runs as: numbers only, resolved by the caller without NSS."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()


class Account(Record):
    """Whom a program runs as by the words of a configuration: the child finds the numbers in its root, without NSS.

    Whoever lives in that root may hold up the reading of its files, so this is nothing for PID 1 to wait for.
    """

    user: str | int | None = None
    group: str | int | None = None
    groups: tuple[str | int, ...] = ()


class Program(Record):
    """What to start. `stdin` None is /dev/null; `environment` is the whole of it, but for what the child adds.

    It leads a session of its own; with `terminal` its stdin becomes the controlling terminal of that session. With
    `session` "group" it only leads a process group, the foreground one if stdin is this session's terminal. `limits`
    are (resource, soft, hard) of setrlimit(2), None for infinity.
    A `function` is run in the child instead of an exec of `argv`; what it returns is the exit code.

    `identity` or `account` is whom it runs as; with `account` HOME, LOGNAME, SHELL and USER come from there unless
    `environment` has them. The variables of `environment_files` (systemd.exec(5), EnvironmentFile=) go over those of
    `environment`.

    `capabilities` None leaves those that there are; else these names, as lcinit.linux.capabilities has them, are all
    that it has and may gain, also as an ordinary user. `private_tmp` (a new tmpfs on /tmp and on /var/tmp) and
    `read_only_paths` give it a mount namespace of its own. `cgroup` is the directory of the cgroup that it is born in.
    `descriptors` are (number here, number there) beside the standard streams. `tty` is the path of a terminal that
    becomes all three of those and the controlling terminal. None for `nice` and `oom_score_adj` is the parent's.
    """

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    cwd: str | None = None
    stdin: int | None = None
    stdout: int = 1
    stderr: int = 2
    identity: Identity | None = None
    function: Callable[[], int] | None = None
    terminal: bool = False
    session: Literal["new", "group"] = "new"
    limits: tuple[tuple[int, int | None, int | None], ...] = ()
    account: Account | None = None
    environment_files: tuple[str, ...] = ()
    umask: int = 0o022
    nice: int | None = None
    oom_score_adj: int | None = None
    capabilities: tuple[str, ...] | None = None
    no_new_privileges: bool = False
    private_tmp: bool = False
    read_only_paths: tuple[str, ...] = ()
    cgroup: int | None = None
    descriptors: tuple[tuple[int, int], ...] = ()
    tty: str | None = None

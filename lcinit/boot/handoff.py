"""The last step: everything of lcinit's is taken off, and PID 1 becomes the guest's init."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import sys

from lcinit import log
from lcinit.boot import guard
from lcinit.boot.console import terminal
from lcinit.boot.keyring import leave_session_keyring
from lcinit.boot.own import keeper
from lcinit.boot.world import World
from lcinit.errors import EX_CANNOT_RUN, EX_NOT_FOUND, CommandFailed, SystemFailure
from lcinit.linux import capabilities, namespaces, process, seccomp, signals
from lcinit.plan import steps as s
from lcinit.plan.inits import INITS, stop_signals
from lcinit.plan.rebooting import may_call
from lcinit.supervisor.accounts import identity
from lcinit.supervisor.spawn import execute

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Never


def drop_capabilities(world: World, step: s.DropCapabilities) -> None:
    """Out of the bounding set, and nothing inheritable or ambient that could come back (capabilities(7))."""
    held = capabilities.bounding_set()
    capabilities.drop_bounding([n for n in (capabilities.CAPABILITIES[name] for name in step.names) if n in held])
    capabilities.clear_ambient()
    effective, permitted, _ = capabilities.get_capabilities()
    capabilities.set_capabilities(effective, permitted, 0)


def answer_reboot(world: World, step: s.AnswerReboot) -> None:
    """Have every reboot(2) of this process and of all that it makes wait for the keeper's answer (seccomp_unotify(2)).

    Not for a plain command, which ends by exiting: it would have a process beside it that nothing ever asks. It needs
    no no_new_privs: PID 1 has CAP_SYS_ADMIN in the guest's user namespace still.
    """
    if reboot_step(world) is None:
        return
    world.reboot_calls = seccomp.listen(seccomp.notify_program(seccomp.REBOOT_CALLS))
    world.keeper_needed = True


def reboot_step(world: World) -> s.AnswerReboot | None:
    """The plan's step that has reboot(2) answered; None where there is none, or the guest's init never calls it."""
    found = next((each for each in world.plan.steps if isinstance(each, s.AnswerReboot)), None)
    return found if found is not None and may_call(world.init_kind, found.command) else None


def hand_off(world: World, step: s.ExecInit) -> Never:
    """Exec the guest's init. Raises CommandFailed with 126 or 127 if it cannot be run, and then nothing was lost."""
    guard.close()
    # what is said after a failure must not go into the guest's pty, whose other end dies with PID 1
    streams = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3) for fd in (0, 1, 2)]
    try:
        _become_init(world, step)
    except BaseException:
        for fd, stream in enumerate(streams):
            os.dup2(stream, fd, inheritable=True)
        raise


def _become_init(world: World, step: s.ExecInit) -> Never:
    who = identity(world.root_fd, step.user, step.group, step.groups)
    _limits(step)
    _console(world)
    leave_session_keyring(world)
    if who is not None:
        os.setgroups(who.groups)
        os.setresgid(who.gid, who.gid, who.gid)
        os.setresuid(who.uid, who.uid, who.uid)
    os.umask(0o022)
    # a guest that lcinit stays for ends with it, as it does where lcinit is PID 1
    process.set_pdeathsig(signals.SIGKILL if world.report is not None else 0)
    if world.report is not None:
        world.report.check()  # an end before the call sends nothing (PR_SET_PDEATHSIG(2const))
    _enter(step.cwd or "/")
    process.close_range(3, flags=process.CLOSE_RANGE_CLOEXEC)
    signals.reset_signals()
    try:
        execute(step.argv, dict(step.environment))
    except OSError as error:
        signals.block_all()
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        raise CommandFailed(
            f"cannot exec {step.argv[0]}: {error.strerror}",
            hint="exec.command names the guest's init" if missing else "",
            exit_code=EX_NOT_FOUND if missing else EX_CANNOT_RUN,
        ) from error


def _enter(directory: str) -> None:
    """The working directory; refused if a link led out of the root, as one to /proc/self/fd/N may (CVE-2024-21626)."""
    try:
        os.chdir(directory)
        reached = os.getcwd()  # ENOENT, or "(unreachable)..." from an older libc: getcwd(2)
    except OSError as error:
        raise SystemFailure.from_os_error(f"enter the working directory {directory}", error) from error
    if not reached.startswith("/"):
        raise SystemFailure(f"refused: the working directory {directory} leads out of the guest root")


def _limits(step: s.ExecInit) -> None:
    for limit in step.limits:
        number = getattr(resource, f"RLIMIT_{limit.name.upper()}")
        soft, hard = (resource.RLIM_INFINITY if v is None else v for v in (limit.soft, limit.hard))
        try:
            resource.setrlimit(number, (soft, hard))
        except (OSError, ValueError) as error:
            raise SystemFailure(
                f"limits.{limit.name}: cannot set {limit.soft}:{limit.hard}: {error}",
                hint="raising a hard limit needs CAP_SYS_RESOURCE outside the guest",
            ) from error


def _console(world: World) -> None:
    """Standard streams for the guest: the fresh pty where there is one, else the manager's, never a terminal of
    somebody else's session."""
    if world.console_slave >= 0:
        try:
            os.setsid()
        except PermissionError:
            _forget_terminal()
        for fd in (0, 1, 2):
            os.dup2(world.console_slave, fd, inheritable=True)
        if world.init_kind == "plain":
            process.set_controlling_tty(0)  # inits give one to whom they log in; a shell has job control by this
        return
    if world.config.id_map is not None and not world.console_own and terminal() is not None:
        # as its controlling terminal the guest could type into it for whoever started lcinit (TIOCSTI, CVE-2017-5226)
        try:
            os.setsid()
        except PermissionError:
            pass  # PID 1 leads the session, so it was made for the container
    for fd in (0, 1, 2):
        try:
            os.fstat(fd)
            os.set_inheritable(fd, True)
        except OSError:
            os.open("/dev/null", os.O_RDWR)  # takes the lowest number that is free: this one


def _forget_terminal() -> None:
    """PID 1 leads its session already: leave the outer terminal to its owner."""
    stream = terminal()
    if stream is not None:
        try:
            process.drop_controlling_tty(stream)
        except OSError as error:
            if error.errno != errno.ENOTTY:
                raise


def spare_keeper(world: World, pid: int) -> None:
    """Have the shutdown of a sysvinit guest wait for no end of the keeper, which it can neither signal nor outlive.

    Debian's /etc/init.d/sendsigs (initscripts) waits ten seconds for all processes but those whose PIDs it is given
    here. Only on the tmpfs that this boot has mounted: in the guest's own files a PID would outlive its process.
    """
    if world.init_kind != "sysvinit" or "run" not in world.mounted:
        return
    try:
        run = world.open_guest("run", os.O_RDONLY | os.O_DIRECTORY)
        try:
            try:
                os.mkdir("sendsigs.omit.d", 0o755, dir_fd=run)
            except FileExistsError:
                pass  # by a command of exec.before
            file = world.open_guest("run/sendsigs.omit.d/lcinit", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        finally:
            os.close(run)
        try:
            os.write(file, f"{pid}\n".encode())
        finally:
            os.close(file)
    except OSError as error:
        log.warning(f"a shutdown of the guest will wait for the keeper: {error.strerror or error}")


def keeper_arguments(world: World, step: s.ExecInit, descriptors: dict[str, int]) -> tuple[str, ...]:
    """The keeper's command line; `descriptors` are its numbers of what it is handed."""
    kind = world.init_kind
    words: list[str] = []
    if "initctl" in descriptors:
        words += ["--initctl-dir", str(descriptors["initctl"]), "--owner", f"{world.owner[0]}:{world.owner[1]}"]
    for request, name in stop_signals(kind, step.stop).items():
        words += [f"--{request}", name]
    if not INITS[kind].catches:
        words.append("--repeat")
    if "console" in descriptors:
        words += ["--console", str(descriptors["console"])]
    for name in ("started", "ready"):
        if name in descriptors:
            words += [f"--{name}", str(descriptors[name])]
    if "reboot-calls" in descriptors:
        words += ["--reboot-calls", str(descriptors["reboot-calls"]), "--user-namespace", _user_namespace(os.getppid())]
        answer = reboot_step(world)
        if answer is not None and answer.machine:
            words.append("--machine")
    return tuple(words)


def _user_namespace(pid: int) -> str:
    """DEVICE:INODE of the user namespace of a process, through a procfs of one's own."""
    procfs = namespaces.open_procfs()
    try:
        found = os.stat(f"{pid}/ns/user", dir_fd=procfs)
    finally:
        os.close(procfs)
    return f"{found.st_dev}:{found.st_ino}"


def become_keeper(world: World, step: s.ExecInit, descriptors: dict[str, int]) -> Never:
    """The helper's last request: turn into the keeper, keeping only what it needs."""
    # first out of the way, then to numbers in a row: a target may be another's source
    moved = [(name, fcntl.fcntl(fd, fcntl.F_DUPFD, 100)) for name, fd in descriptors.items()]
    numbers: dict[str, int] = {}
    for number, (name, fd) in enumerate(moved, start=3):
        os.dup2(fd, number, inheritable=True)
        numbers[name] = number
    # the channel to the leader too, which learns by its end that the exec succeeded
    process.close_range(3 + len(numbers), flags=process.CLOSE_RANGE_CLOEXEC)
    signals.reset_signals()
    # until it says what it ignores: without an id map a guest that ends early sends SIGTERM to all processes, it too
    signals.block_all()
    environment = {"PATH": "/usr/bin:/bin"}
    try:
        os.execve(sys.executable, keeper(keeper_arguments(world, step, numbers)), environment)
    except OSError as error:
        raise SystemFailure.from_os_error("start the keeper", error) from error

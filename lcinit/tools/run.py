"""`run` and `contain`: a guest without a manager. The launcher is what PID 1 is in a container: it stays outside the
guest and supervises it.

Root does that at once. An ordinary user may mount nothing, so lcinit first becomes root of a user namespace with the
guest's ids, starts itself anew there (what the old program knows of the outside is gone, and the kernel counts the new
one to that namespace: ptrace(2), user_namespaces(7)), and goes on as root would, with each id mapped to itself. The
guest is in a user namespace below that one, so what was mounted for it is locked.
"""

from __future__ import annotations

import errno
import os
import stat

from lcinit import log
from lcinit.boot.boot import look, prepare, world_of
from lcinit.boot.guest import identify
from lcinit.boot.own import program
from lcinit.config.idmaps import range_text
from lcinit.config.load import load
from lcinit.config.values import Command, Config, Exec, IdMap, IdRange, Log, Namespaces, Network, Root, Setup
from lcinit.errors import EX_NOPERM, EX_NOT_FOUND, LcinitError, SystemFailure, UsageError
from lcinit.linux import process
from lcinit.plan.facts import Console
from lcinit.plan.guest import command, root_of
from lcinit.tools import caller, user_namespace
from lcinit.tools.contain_options import Choice, Options, choose

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Never

    from lcinit.plan.build import Plan
    from lcinit.tools.contain_options import Side

SHELL = "/bin/sh"


def run(options: Options, main: Callable[[list[str]], int]) -> int:
    """Run the guest until it ends: its exit code, 128 + N for signal N. Raises LcinitError where it cannot start.

    Every signal must be blocked by now. `main` is lcinit's own entry point, for commands that are its tools.
    """
    config, owner = _target(options)
    sides = caller.sides("run" if options.name == "run" else "contain")
    choice = _choice(options, config, sides, owner)
    for note in choice.notes:
        log.warning(note)
    if not caller.is_privileged():
        user_namespace.enter(choice, sides)
        _start_anew(options, choice.id_map)
    return supervise(_completed(config, choice.id_map, owner), options, main)


def _target(options: Options) -> tuple[Config, tuple[int, int]]:
    """The configuration that DIR or FILE means, without an id map of its own, and who owns the guest root."""
    try:
        status = os.stat(options.target)
    except OSError as error:
        raise SystemFailure.from_os_error(f"run {options.target}", error, hint="name a directory, or a file") from error
    if stat.S_ISDIR(status.st_mode):
        if os.path.samestat(status, os.stat("/")):
            raise UsageError("the guest root cannot be /", hint="name the directory that is to be the guest's /")
        try:
            here = os.getcwd()
        except OSError as error:
            raise SystemFailure.from_os_error("tell the working directory", error, hint="start it elsewhere") from error
        return _of_options(options, here), (status.st_uid, status.st_gid)
    if options.name == "contain":
        raise SystemFailure(f"{options.target} is not a directory", hint="name the guest's root directory")
    if options.inside is not None or options.outside is not None or options.share_network:
        raise UsageError(
            "-i, -n and -o go with a directory",
            hint=f"write setup.after, namespaces.network and setup.outside into {options.target}",
        )
    config = load(options.target)
    if config.exec.pid == "shared" or config.setup.mode == "none":
        raise UsageError(
            f"{options.target}: run makes a guest of its own, so exec.pid is nested and setup.mode is not none"
        )
    try:
        root = os.stat(root_of(config))
    except OSError:
        return config, (0, 0)  # setup.before may make it
    return config, (root.st_uid, root.st_gid)


def _of_options(options: Options, here: str) -> Config:
    """The configuration of a guest in a directory; `here` is the caller's own."""
    after = () if options.inside is None else (Command(argv=(SHELL, "-c", options.inside)),)
    outside = () if options.outside is None else (Command(argv=(SHELL, "-c", options.outside), cwd=here),)
    return Config(
        root=Root(path=os.path.normpath(os.path.join(here, options.target))),
        namespaces=Namespaces(network=not options.share_network),
        network=Network(interfaces="none"),
        environment=(("container", "contain"),) if options.name == "contain" else (),
        setup=Setup(after=after, outside=outside),
        exec=Exec(command=(SHELL,)),
        log=Log(level="warning"),
    )


def _choice(options: Options, config: Config, sides: tuple[Side, Side], owner: tuple[int, int]) -> Choice:
    """The file's own map, unless -u or -g were given, else what they or the defaults say."""
    users, groups = options.users, options.groups
    if config.id_map is not None and users is None and groups is None:
        users, groups = (_option_text(ranges) for ranges in (config.id_map.users, config.id_map.groups))
    return choose(users, groups, sides, options.name, owner)


def _completed(config: Config, id_map: IdMap, owner: tuple[int, int]) -> Config:
    """What holds for every guest that is run: nested, and no FIFO in a /run that is somebody else's.

    Files that belong to outer root, as an unpacked image's do, are shown to the guest as its own (an idmapped mount).
    """
    root = config.root
    first = id_map.outer_user(0), id_map.outer_group(0)
    if owner[0] == 0 and first[0] != 0 and config.id_map is None:
        root = root.replace(id_map=True)
    if config.initctl is True:
        log.warning("initctl: true has no effect on a guest that is run: /run is not lcinit's")
    changed = config.exec.replace(mode="tolerant", pid="nested")
    return config.replace(root=root, id_map=id_map, exec=changed, initctl=False)


def supervise(config: Config, options: Options, main: Callable[[list[str]], int]) -> int:
    """Stay with the guest until it is over; its exit code. Raises LcinitError where it cannot start."""
    user_namespace.refuse_where_disabled()
    user_namespace.own_namespaces()
    _check_command(config, options)
    machine = look()
    if options.plain_streams:
        machine = machine.replace(console=Console(terminal=False, own=False, lent=True))
    machine, plan = prepare(config, machine, options.command, override_exec=False)
    plan = _as_a_launcher(plan)
    log.configure(config.log.level, config.log.format, config.log.file)
    for warning in plan.warnings:
        log.warning(warning)
    process.set_name("contain" if options.name == "contain" else "lcinit")  # an interpreter's says nothing to pgrep(1)
    process.set_child_subreaper(True)
    world = world_of(config, machine, plan, main)
    world.control = None  # /run is the caller's machine's, and others may run guests too
    from lcinit.guest.stay import stay

    return stay(world)


def _as_a_launcher(plan: Plan) -> Plan:
    """The rules of who is a program like others, also as PID 1 of a container: it ends by its exit code alone."""
    rules = plan.supervision
    if rules is None:
        raise AssertionError("a guest that is run is a tolerant one")
    on_reboot = "restart" if rules.on_reboot == "propagate" else rules.on_reboot
    rules = rules.replace(on_reboot=on_reboot, may_reboot=False, first=False, int_reboots=False, hup_reboots=False)
    return plan.replace(supervision=rules)


def _check_command(config: Config, options: Options) -> None:
    """Refuse a CMD that is not there before anything is made for it. What setup.before may bring is not judged."""
    if config.setup.before:
        return
    argv = command(config, options.command, override_exec=False)
    try:
        root = os.open(root_of(config), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return  # the plan says what is missing
    try:
        if not os.access(root_of(config), os.X_OK, effective_ids=True):
            raise SystemFailure(
                f"cannot enter {root_of(config)}: Permission denied",
                hint="name a directory of your own: what `pseudo` unpacks there is the guest's",
                exit_code=EX_NOPERM,
            )
        identify(root, argv[0])
    except LcinitError as error:
        if error.exit_code != EX_NOT_FOUND:
            raise
        hint = f"name a CMD that is in {options.target}"
        raise LcinitError(error.message, hint=hint, exit_code=EX_NOT_FOUND) from error
    finally:
        os.close(root)


def _start_anew(options: Options, id_map: IdMap) -> Never:
    """The same command line with each id mapped to itself, in the user namespace that this process is root of now."""
    words: list[str] = [options.name]
    for option, ranges in (("-u", id_map.users), ("-g", id_map.groups)):
        words += [option, ",".join(f"{r.inside}:{r.inside}:{r.size}" for r in ranges)]
    words += ["-n"] * options.share_network + ["-c"] * options.plain_streams
    for option, text in (("-i", options.inside), ("-o", options.outside)):
        words += [option, text] if text is not None else []
    argv = program("lcinit", (*words, "--", options.target, *options.command))
    try:
        os.execv(argv[0], argv)
    except OSError as error:
        hint = "it must be readable to you" if error.errno == errno.EACCES else ""
        raise SystemFailure.from_os_error(f"start {argv[0]} in the new user namespace", error, hint=hint) from error


def _option_text(ranges: tuple[IdRange, ...]) -> str:
    return ",".join(range_text(r).replace(" ", ":") for r in ranges)

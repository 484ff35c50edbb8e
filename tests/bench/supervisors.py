"""The supervisors of services that lcinit is measured beside, each with the same services in its own words."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping

from tests.bench.runs import Peer, Row
from tests.bench.stage import CONTAINER, ENVIRONMENT, PYTHON, Stage
from tests.lab.cache import cache_directory
from tests.lab.guests import guest

# What every service is: it writes its number and its PID where the harness reads them, and waits for what never comes.
# It is as small as can be, so that what is measured is the supervisor: one program, which needs no libraries.
SERVICE = "#!{shell} sh\necho {number} $$ >{marks}\nread it <{never}\n"
STAYING = "root: null\nsetup: none\nexec: {mode: tolerant, pid: shared}\nlog: {level: error}\n"
POLICY = ("restart: always", "restart_delay: 0", "start_limit_burst: 0")
LCINIT, OF_FILES = "lcinit", "lcinit, of files"
# In no registry that tests/bench/install takes packages from.
NOWHERE = ("dinit", "nitro")


class Scene:
    """`count` services and the FIFO that they write their marks to."""

    def __init__(self, stage: Stage, name: str, count: int) -> None:
        self.stage = stage
        stage.unpack(unpacked())
        self.name = name
        self.count = count
        self.directory = os.path.join(stage.directory, name)
        self.marks = os.path.join(self.directory, "marks")
        self.shell = os.path.join(self.directory, "busybox")
        never = os.path.join(self.directory, "never")
        os.mkdir(self.directory)
        os.mkfifo(self.marks)
        os.mkfifo(never)
        shutil.copy(os.path.join(guest("busybox"), "bin/busybox"), self.shell)
        self.scripts = []
        for number in range(count):
            script = os.path.join(self.directory, f"service{number}")
            with open(script, "w") as file:
                file.write(SERVICE.format(shell=self.shell, number=number, marks=self.marks, never=never))
            os.chmod(script, 0o755)
            self.scripts.append(script)

    def lcinit(self) -> Peer:
        """lcinit with all services in its configuration."""
        policy = ", ".join(POLICY)
        lines = [f"  s{n}: {{command: {script}, {policy}}}\n" for n, script in enumerate(self.scripts)]
        return self.stage.lcinit(LCINIT, f"{STAYING}services:\n{''.join(lines)}", proc=True)

    def lcinit_of_files(self) -> Peer:
        """The same from a file each, enabled by a link each, as a guest has them."""
        files, enabled = (os.path.join(self.directory, "etc", each) for each in ("services", "enabled"))
        for directory in (files, enabled):
            os.makedirs(directory)
        for number, script in enumerate(self.scripts):
            with open(os.path.join(files, f"s{number}.yml"), "w") as file:
                file.write("\n".join((f"command: {script}", *POLICY, "")))
            os.symlink(f"../services/s{number}.yml", os.path.join(enabled, f"s{number}"))
        return self.stage.lcinit(OF_FILES, f"{STAYING}services: {{}}\nservices_dir: {files}\n", proc=True)

    def peers(self, *names: str) -> list[Peer]:
        """Those of these names, or all, that are in the cache, each as PID 1 of a container."""
        makers = {"s6": self._s6, "runit": self._runit, "supervisord": self._supervisord, "circus": self._circus}
        return [makers[name]() for name in names or makers if in_cache(name)]

    def _s6(self) -> Peer:
        """s6-svscan(1) with a supervisor for each service; room for more of them than its 500."""
        return _peer("s6", [_program("s6-svscan"), "-c", "4000", self._directories("s6")])

    def _runit(self) -> Peer:
        """runsvdir(8) with a supervisor for each service."""
        return _peer("runit", [_program("runsvdir"), self._directories("runit")])

    def _directories(self, name: str) -> str:
        """A directory with one for each service, which the supervisor writes to as well."""
        directory = os.path.join(self.directory, name)
        for number, script in enumerate(self.scripts):
            os.makedirs(os.path.join(directory, f"s{number}"))
            os.link(script, os.path.join(directory, f"s{number}", "run"))
        return directory

    def _supervisord(self) -> Peer:
        """supervisord without its own log and those of its programs."""
        head = supervisord_head(self.directory)
        program = "[program:s{n}]\ncommand={script}\nstartsecs=0\nstdout_logfile=NONE\nstderr_logfile=NONE\n"
        text = head + "".join(program.format(n=n, script=script) for n, script in enumerate(self.scripts))
        return supervisord(self.stage.write(f"{self.name}/supervisord.conf", text))

    def _circus(self) -> Peer:
        """circusd, whose services are not to wait for one another."""
        head = "[circus]\nendpoint = ipc://{d}/e\npubsub_endpoint = ipc://{d}/p\n"
        watcher = "[watcher:s{n}]\ncmd = {script}\nsingleton = True\nwarmup_delay = 0\n"
        text = head.format(d=self.directory)
        text += "".join(watcher.format(n=n, script=script) for n, script in enumerate(self.scripts))
        path = self.stage.write(f"{self.name}/circus.ini", text)
        return _peer("circus", [*_python("circus.circusd"), "--log-level", "critical", path])


def supervisord_head(directory: str) -> str:
    """The section of supervisord itself: in the foreground, and with nothing to say."""
    head = "[supervisord]\nnodaemon=true\nsilent=true\nuser=root\nlogfile=/dev/null\nlogfile_maxbytes=0\n"
    return f"{head}pidfile={directory}/supervisord.pid\n"


def supervisord(config: str) -> Peer:
    """supervisord with this configuration file."""
    return _peer("supervisord", [*_python("supervisor.supervisord"), "-c", config])


def beside(
    what: str, own: float, unit: str, values: Mapping[str, float], names: tuple[str, ...], budgets: Mapping[str, float]
) -> list[Row]:
    """A line for each peer of these names, also for one that could not be had."""
    return [
        Row(what, own, unit, name, values[name], budgets.get(name))
        if name in values
        else Row(what, own, unit, f"{name}: not to be had")
        for name in names
    ]


def unpacked() -> str:
    """Where the packages are."""
    return os.path.join(cache_directory(), "supervisors")


def in_cache(name: str) -> bool:
    """Whether tests/bench/install could have it."""
    places = {"s6": "supervisors/usr/bin/s6-svscan", "runit": "supervisors/usr/bin/runsvdir"}
    places |= {"supervisord": "supervisors-python/supervisor", "circus": "supervisors-python/circus"}
    return os.path.exists(os.path.join(cache_directory(), places[name]))


def _program(name: str) -> str:
    return os.path.join("/usr/bin", name)


def _python(module: str) -> list[str]:
    """The start of a supervisor that is written in Python, by the interpreter that lcinit has."""
    site = os.path.join(cache_directory(), "supervisors-python")
    start = f"import sys; sys.path.insert(0, {site!r}); from {module} import main; sys.exit(main())"
    return [PYTHON, "-I", "-c", start]


def _peer(name: str, argv: list[str]) -> Peer:
    return Peer(name, argv, ENVIRONMENT, flags=CONTAINER, proc=True)

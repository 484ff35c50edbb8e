"""The supervisors of services that lcinit is measured beside, each with the same services in its own words."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from tests.bench.runs import Peer
from tests.bench.stage import CONTAINER, ENVIRONMENT, PYTHON, Stage
from tests.lab.cache import cache_directory

# What every service is: it writes its number and its PID where the harness reads them, and stays.
SERVICE = "#!/bin/sh\necho {number} $$ >{marks}\nexec sleep 1000000\n"
STAYING = "root: null\nsetup: none\nexec: {mode: tolerant, pid: shared}\nlog: {level: error}\n"


class Scene:
    """`count` services and the FIFO that they write their marks to."""

    def __init__(self, stage: Stage, name: str, count: int) -> None:
        self.stage = stage
        stage.unpack(unpacked())
        self.name = name
        self.count = count
        self.directory = os.path.join(stage.directory, name)
        self.marks = os.path.join(self.directory, "marks")
        os.mkdir(self.directory)
        os.mkfifo(self.marks)
        self.scripts = []
        for number in range(count):
            home = os.path.join(self.directory, "sv", f"s{number}")
            os.makedirs(home)
            script = os.path.join(home, "run")
            with open(script, "w") as file:
                file.write(SERVICE.format(number=number, marks=self.marks))
            os.chmod(script, 0o755)
            self.scripts.append(script)

    @property
    def services(self) -> str:
        """The directory of service directories, as s6 and runit scan it."""
        return os.path.join(self.directory, "sv")

    def lcinit(self, name: str = "lcinit") -> Peer:
        """lcinit with all services in its configuration."""
        policy = "restart: always, restart_delay: 0, start_limit_burst: 0, log: none"
        lines = [f"  s{n}: {{command: {script}, {policy}}}" for n, script in enumerate(self.scripts)]
        return self.stage.lcinit(name, STAYING + "services:\n" + "\n".join(lines) + "\n", proc=True)

    def lcinit_of_files(self) -> Peer:
        """The same from a file each, enabled by a link each, as a guest has them."""
        files, enabled = (os.path.join(self.directory, "etc", each) for each in ("services", "enabled"))
        for directory in (files, enabled):
            os.makedirs(directory)
        for number, script in enumerate(self.scripts):
            with open(os.path.join(files, f"s{number}.yml"), "w") as file:
                file.write(f"command: {script}\nrestart: always\nrestart_delay: 0\nstart_limit_burst: 0\nlog: none\n")
            os.symlink(f"../services/s{number}.yml", os.path.join(enabled, f"s{number}"))
        return self.stage.lcinit("lcinit, of files", f"{STAYING}services: {{}}\nservices_dir: {files}\n", proc=True)

    def peers(self) -> list[Peer]:
        """Those that are in the cache, all as PID 1 of a container."""
        makers: Sequence[Callable[[], Peer]] = (self._s6, self._runit, self._supervisord, self._circus)
        site = os.path.join(cache_directory(), "supervisors-python")
        return [
            peer
            for peer in (make() for make in makers)
            if os.path.exists(site if peer.argv[0] == PYTHON else peer.argv[0])
        ]

    def _s6(self) -> Peer:
        return self._peer("s6", [_program("s6-svscan"), "-c", "4000", self.services])

    def _runit(self) -> Peer:
        return self._peer("runit", [_program("runsvdir"), self.services])

    def _supervisord(self) -> Peer:
        head = "[supervisord]\nnodaemon=true\nuser=root\nlogfile=/dev/null\nlogfile_maxbytes=0\n"
        head += f"pidfile={self.directory}/supervisord.pid\n"
        program = "[program:s{n}]\ncommand={script}\nstartsecs=0\nstdout_logfile=NONE\nstderr_logfile=NONE\n"
        text = head + "".join(program.format(n=n, script=script) for n, script in enumerate(self.scripts))
        path = self.stage.write(f"{self.name}/supervisord.conf", text)
        return self._peer("supervisord", [*_python("supervisor.supervisord"), "-c", path])

    def _circus(self) -> Peer:
        head = "[circus]\ncheck_delay = 5\nendpoint = ipc://{d}/e\npubsub_endpoint = ipc://{d}/p\n"
        watcher = "[watcher:s{n}]\ncmd = {script}\nsingleton = True\nwarmup_delay = 0\n"
        text = head.format(d=self.directory)
        text += "".join(watcher.format(n=n, script=script) for n, script in enumerate(self.scripts))
        path = self.stage.write(f"{self.name}/circus.ini", text)
        return self._peer("circus", [*_python("circus.circusd"), "--log-level", "critical", path])

    @staticmethod
    def _peer(name: str, argv: list[str]) -> Peer:
        return Peer(name, argv, ENVIRONMENT, flags=CONTAINER, proc=True)


def _program(name: str) -> str:
    return os.path.join("/usr/bin", name)


def _python(module: str) -> list[str]:
    """The start of a supervisor that is written in Python, by the interpreter that lcinit has."""
    site = os.path.join(cache_directory(), "supervisors-python")
    start = f"import sys; sys.path.insert(0, {site!r}); from {module} import main; sys.exit(main())"
    return [PYTHON, "-I", "-c", start]


def unpacked() -> str:
    """Where the packages are."""
    return os.path.join(cache_directory(), "supervisors")


def s6_log() -> str:
    """s6's logger."""
    return _program("s6-log")

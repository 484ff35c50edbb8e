"""Every service of the catalogue in a guest that has the real daemon, used by its real client."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from lcinit.errors import LcinitError
from lcinit.linux.capabilities import CAPABILITIES
from tests.namespace.isolated import needs_root
from tests.services.rig import Files, Guest, killed_and_back, wait_until

CATALOGUE = os.path.join(os.path.dirname(__file__), "..", "..", "services")
SSH = ("ssh", "-oStrictHostKeyChecking=accept-new", "-oBatchMode=yes", "-oLogLevel=ERROR", "localhost")
CURL = ("curl", "-sS", "--max-time", "5")
PSQL = ("setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", "psql", "-qAtXc")

pytestmark = needs_root


def _nothing(_guest: Guest) -> None:
    pass


def _make_key(guest: Guest) -> None:
    guest.run("sh", "-c", "umask 077; mkdir /root/.ssh; ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
    guest.run("cp", "/root/.ssh/id_ed25519.pub", "/root/.ssh/authorized_keys")


def _log_in(guest: Guest) -> None:
    # at a reload it stops listening for a moment
    log_in = (*SSH, "echo $(id -u) $((6 * 7))")
    wait_until(lambda: guest.run(*log_in, check=False) == "0 0 42", "nobody can log in", guest)


def _run_a_job(guest: Guest) -> None:
    """The job of each start of the machine: cron runs it at once, and once as long as its mark in /run stands."""
    wait_until(lambda: os.path.exists(guest.path("/tmp/job")), "the job was not run", guest)
    assert guest.run("cat", "/tmp/job") == "0"
    guest.run("rm", "/tmp/job", "/run/crond.reboot")


def _get_a_page(guest: Guest) -> None:
    assert "Welcome to nginx" in guest.run(*CURL, "http://127.0.0.1/")


def _keep_a_value(guest: Guest) -> None:
    assert guest.run("redis-cli", "incr", "number") == "1"
    assert guest.run("redis-cli", "get", "number") == "1"
    assert guest.run("redis-cli", "getdel", "number") == "1"


def _select(guest: Guest) -> None:
    assert guest.run(*PSQL, "select 6 * 7") == "42"


class Case(NamedTuple):
    """What is particular to a service: how it is used, and what it runs as, of /proc/PID/status.

    `commands`: what /proc/PID/comm says. `capabilities` None is all that the guest has.
    """

    use: Callable[[Guest], None]
    comm: str
    user: int = 0
    capabilities: tuple[str, ...] | None = None
    umask: str = "0022"
    reloads: bool = True
    prepare: Callable[[Guest], None] = _nothing
    files: Files = {}


_NGINX = ("chown", "dac_override", "dac_read_search", "kill", "net_bind_service", "setgid", "setuid")
_JOB = (0o644, "@reboot root id -u >/tmp/job\n")
CASES = {
    "sshd": Case(_log_in, "sshd", prepare=_make_key),
    "cron": Case(_run_a_job, "cron", reloads=False, files={"etc/cron.d/lab": _JOB}),
    "nginx": Case(_get_a_page, "nginx", capabilities=_NGINX),
    "redis": Case(_keep_a_value, "redis-server", 100, (), "0007", reloads=False),
    "postgresql": Case(_select, "postgres", 101, (), "0077"),
}


def _boot(tmp_path: Path, name: str) -> Guest:
    return Guest(str(tmp_path), services={name: {}}, files=CASES[name].files)


def test_the_catalogue_is_what_these_tests_are_of() -> None:
    assert sorted(CASES) == sorted(Path(path).stem for path in glob.glob(f"{CATALOGUE}/*.yml"))


@pytest.mark.parametrize("name", CASES)
def test_its_file_is_right(name: str) -> None:
    command = [sys.executable, "-m", "lcinit", "check", "--service", os.path.join(CATALOGUE, f"{name}.yml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, ""), done


def _status(guest: Guest, name: str) -> dict[str, Any]:
    """What `lcinit status --json` says of a service."""
    done = guest.lcinit("status", "--json")
    assert (done.returncode, done.stderr) == (0, ""), done
    return next(each for each in json.loads(done.stdout)["service_list"] if each["name"] == name)


@pytest.mark.parametrize("name", CASES)
def test_it_is_ready_used_killed_back_reloaded_stopped_and_started_again(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    with _boot(tmp_path, name) as guest:
        guest.up(name)
        case.prepare(guest)
        case.use(guest)
        told = _status(guest, name)
        assert (told["state"], told["sub"], told["restarts"]) == ("active", "running", 0)
        assert guest.run("cat", f"/proc/{told['pid']}/comm") == case.comm
        _runs_as(guest, told["pid"], case)

        _, after = killed_and_back(guest, name)
        case.use(guest)
        told = _status(guest, name)
        assert (told["state"], told["restarts"], told["pid"]) == ("active", 1, after["pid"])
        ends = [each for each in guest.events() if each["kind"] == "service-ended"]
        assert [each["facts"]["result"] for each in ends] == ["signal"]

        _reload(guest, name, case, after["pid"])

        guest.asked("Stop", name)
        told = _status(guest, name)
        assert (told["state"], told["sub"], told["result"], told["pid"]) == ("inactive", "dead", "success", None)
        assert guest.run("pgrep", "-x", case.comm, check=False) == "1"

        guest.asked("Start", name)
        case.use(guest)
        told = _status(guest, name)
        assert (told["state"], told["sub"]) == ("active", "running")

        ended = guest.poweroff()
        assert not ended.errors(), "\n".join(ended.lines)


def _runs_as(guest: Guest, pid: int, case: Case) -> None:
    """The kernel's word for what the file says."""
    fields = ("Uid", "Umask", "NoNewPrivs", "CapBnd", "CapEff")
    uid, umask, no_new_privileges, bounding, effective = (guest.process(pid, field) for field in fields)
    assert (int(uid.split()[1]), umask) == (case.user, case.umask)
    assert no_new_privileges == ("0" if case.capabilities is None else "1")
    if case.capabilities is None:
        assert bounding == guest.process(1, "CapBnd")
    else:
        assert int(bounding, 16) == sum(1 << CAPABILITIES[each] for each in case.capabilities)
        assert int(effective, 16) == int(bounding, 16)


def _reload(guest: Guest, name: str, case: Case, pid: int) -> None:
    if not case.reloads:
        with pytest.raises(LcinitError, match=f"{name} does not say how it reloads"):
            guest.call("Reload", names=[name])
    else:
        guest.asked("Reload", name)
        guest.up(name)
        case.use(guest)
    assert guest.service(name)["pid"] == pid


@pytest.mark.parametrize(("name", "path"), [("sshd", "/etc/ssh/sshd_config"), ("nginx", "/etc/nginx/nginx.conf")])
def test_a_broken_configuration_stops_no_running_service_and_starts_none(name: str, path: str, tmp_path: Path) -> None:
    case = CASES[name]
    with _boot(tmp_path, name) as guest:
        pid = guest.up(name)["pid"]
        case.prepare(guest)
        good = guest.read(path)
        guest.write(path, "nonsense on purpose;\n")
        (done,) = guest.call("Reload", names=[name])["done"]
        assert not done["ok"], done
        case.use(guest)
        assert guest.service(name)["pid"] == pid

        (done,) = guest.call("Restart", names=[name])["done"]
        assert (done["ok"], done["sub"]) == (False, "auto-restart"), done
        assert "start_pre" in done["reason"]
        assert "nonsense" in guest.console()

        guest.write(path, good)
        guest.asked("Start", name)
        case.use(guest)


def test_redis_keeps_its_data_over_a_stop_and_comes_again_after_a_shutdown_by_a_client(tmp_path: Path) -> None:
    with _boot(tmp_path, "redis") as guest:
        guest.up("redis")
        assert guest.service("redis")["status_text"] == "Ready to accept connections"
        guest.run("redis-cli", "set", "kept", "value")
        guest.asked("Restart", "redis")
        assert guest.run("redis-cli", "get", "kept") == "value"
        guest.run("redis-cli", "shutdown", check=False)
        guest.awaited("redis", lambda state: state["sub"] == "running" and state["restarts"] == 1, "up again")
        assert guest.run("redis-cli", "get", "kept") == "value"


def test_postgresql_loses_nothing_whether_it_is_killed_or_stopped(tmp_path: Path) -> None:
    with _boot(tmp_path, "postgresql") as guest:
        guest.up("postgresql")
        guest.run(*PSQL, "create table kept (value int); insert into kept values (1)")
        killed_and_back(guest, "postgresql")
        assert "not properly shut down; automatic recovery in progress" in guest.console()
        guest.run(*PSQL, "insert into kept values (2)")
        seen = len(guest.console())
        guest.asked("Restart", "postgresql")
        assert guest.run(*PSQL, "select sum(value) from kept") == "3"
        said = guest.console()[seen:]
        assert "database system is shut down" in said
        assert "recovery" not in said


def test_the_kernel_takes_a_client_of_postgresql_before_the_server(tmp_path: Path) -> None:
    with _boot(tmp_path, "postgresql") as guest:
        pid = guest.up("postgresql")["pid"]
        assert guest.run("cat", f"/proc/{pid}/oom_score_adj") == "0"
        assert guest.run(*PSQL, "select pg_read_file('/proc/self/oom_score_adj')") == "200"


def test_postgresql_without_a_cluster_says_so_and_is_not_started_again(tmp_path: Path) -> None:
    with _boot(tmp_path, "postgresql") as guest:
        guest.up("postgresql")
        guest.run("rm", "/etc/postgresql/15/main/postgresql.conf")
        (done,) = guest.call("Restart", names=["postgresql"])["done"]
        assert (done["ok"], done["state"]) == (False, "failed"), done
        state = guest.service("postgresql")
        assert (state["result"], state["status"], state["restarts"]) == ("exit-code", 78, 0)
        assert "pg_createcluster VERSION main" in guest.console()


def test_sshd_makes_its_host_keys_once(tmp_path: Path) -> None:
    keys = ("sh", "-c", "cat /etc/ssh/ssh_host_*_key.pub")
    with _boot(tmp_path, "sshd") as guest:
        guest.up("sshd")
        made = guest.run(*keys)
        assert len(made.splitlines()) == 3
        guest.asked("Restart", "sshd")
        assert guest.run(*keys) == made

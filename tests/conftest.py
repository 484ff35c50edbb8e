"""Fixtures of all tests, and the check that the machine is as it was before them."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator

import pytest

from tests.lab import guests, machine, managers
from tests.lab.boot_root import boot_root as build_boot_root
from tests.lab.container import Container, stop_all

IN_CI = os.environ.get("CI", "") not in ("", "0", "false")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """On a laptop a test may skip what the kernel does not allow; in CI a skip is a failure."""
    report = yield
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped in CI: {reason}"
    return report


def pytest_sessionstart(session: pytest.Session) -> None:
    """Remember what the machine looks like, in the process that ends last."""
    if _is_worker(session.config):
        return
    session.config.stash[_BEFORE] = machine.snapshot(machine.LEFTOVERS)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Fail the run if a test left anything behind or changed anything of the machine."""
    stop_all()
    if _is_worker(session.config):
        return
    changed = machine.differences(session.config.stash[_BEFORE], machine.snapshot(machine.LEFTOVERS))
    if changed:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        assert reporter is not None
        reporter.section("the tests changed this machine", red=True)
        for line in changed:
            reporter.line(line, red=True)


def _is_worker(config: pytest.Config) -> bool:
    """One of the processes among which pytest-xdist shares the tests."""
    return hasattr(config, "workerinput")


_BEFORE = pytest.StashKey[machine.Snapshot]()


def _need_root() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root: it starts containers")


@pytest.fixture(scope="session")
def boot_root() -> str:
    """A boot root with the working tree's lcinit. Read-only by agreement: containers get an overlay on it."""
    _need_root()
    return build_boot_root()


@pytest.fixture
def guest_root() -> Callable[[str], str]:
    """`guest_root("systemd252")`: the cached, shared root of that guest. Never write to it."""
    _need_root()
    return guests.guest


@pytest.fixture
def guest_copy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """`guest_copy("sysvinit", shift=100000)`: a writable copy that is deleted after the test."""
    _need_root()
    made: list[str] = []

    def copy(name: str, shift: int | None = None) -> str:
        destination = os.path.join(str(tmp_path_factory.mktemp("guest")), "root")
        made.append(destination)
        return guests.copy_of(name, destination, shift)

    yield copy
    for destination in made:
        guests.remove_tree(destination)


@pytest.fixture
def container() -> Iterator[Callable[..., Container]]:
    """`container("lxc")` or `container(managers.LXC)`: a container, stopped and removed whatever the test does."""
    _need_root()
    made: list[Container] = []

    def make(manager: str | type[Container], **options: str) -> Container:
        driver = managers.DRIVERS[manager] if isinstance(manager, str) else manager
        made.append(driver(**options))
        return made[-1]

    yield make
    for each in made:
        each.stop()

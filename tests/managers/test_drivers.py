"""The drivers themselves, with a shell script as /sbin/init: what later tests rely on when lcinit is PID 1."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.lab import managers
from tests.lab.container import Container, ContainerError

INIT = """\
#!/bin/sh
trap 'echo was asked; exit 0' TERM INT PWR
[ "$1" = exit ] && { echo leaving; exit "$2"; }
echo "config is $(cat /mnt/init.yml 2>/dev/null), guest has $(ls /mnt/root | tr '\\n' ' ')"
echo "network is $(ls /sys/class/net | tr '\\n' ' ')"
touch /mnt/cache/written /written && echo writable
touch /mnt/layers/written 2>/dev/null || echo layers are read-only
echo "told $TOLD"
echo ready
while read -r line; do echo "typed $line"; done
sleep 60
"""

ReadyContainer = Callable[..., Container]


@pytest.fixture
def stand_in(container: ReadyContainer, boot_root: str, tmp_path_factory: pytest.TempPathFactory) -> ReadyContainer:
    """Start a manager's container whose PID 1 is the script above."""
    script = tmp_path_factory.mktemp("init") / "init"
    script.write_text(INIT)
    script.chmod(0o755)

    def start(manager: str, **arguments: object) -> Container:
        binds = [*arguments.pop("binds", []), (str(script), "/usr/lib/lcinit/bin/lcinit", True)]  # type: ignore[misc]
        return container(manager).start(boot_root, binds=binds, **arguments)  # type: ignore[arg-type]

    return start


@pytest.mark.parametrize("manager", sorted(managers.DRIVERS))
def test_container_gets_what_it_was_given_and_nothing_of_the_machine(
    manager: str, stand_in: ReadyContainer, guest_root: Callable[[str], str], boot_root: str
) -> None:
    layers = os.path.join(guest_root("plain"), "etc")
    started = stand_in(
        manager,
        guest_root=guest_root("plain"),
        config="hostname: x\n",
        binds=[(layers, "/mnt/layers", True)],
        env={"TOLD": "something"},
    )
    started.expect("^ready", 20)
    console = started.console().decode()
    assert "config is hostname: x, guest has bin dev etc" in console
    assert "network is lo " in console
    assert "\nwritable" in console
    assert "layers are read-only" in console
    assert "told something" in console
    assert not os.path.exists(boot_root + "/written")
    assert started.run("cat", "/proc/1/cmdline").stdout.startswith("/bin/sh\0")
    started.send(b"word\n")
    started.expect("typed word")


@pytest.mark.parametrize("manager", sorted(managers.DRIVERS))
def test_stopping_leaves_no_process_no_cgroup_and_no_file(manager: str, stand_in: ReadyContainer) -> None:
    started = stand_in(manager)
    started.expect("^ready", 20)
    first = started.pid1()
    started.stop()
    assert not os.path.exists(f"/proc/{first}")
    assert not os.path.exists(started.cgroup)
    assert not os.path.exists(started.directory)


@pytest.mark.parametrize(
    ("manager", "status"), [("unshare", 7), ("nspawn", 7), ("runc", 7), ("lxc", 0), ("libvirt", None)]
)
def test_exit_status_is_the_managers_own(manager: str, status: int | None, stand_in: ReadyContainer) -> None:
    started = stand_in(manager, args=["exit", "7"])
    assert started.wait(20).status == status
    assert b"leaving" in started.console()


def test_waiting_in_vain_says_what_the_console_said(stand_in: ReadyContainer) -> None:
    started = stand_in("unshare")
    started.expect("^ready")
    with pytest.raises(ContainerError, match="told") as caught:
        started.expect("never printed", 0.2)
    assert "nothing within 0.2 s" in str(caught.value)

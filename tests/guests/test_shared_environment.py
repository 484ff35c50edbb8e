"""exec.pid: shared. The commands of exec.before have the environment that the command itself will have."""

from __future__ import annotations

from collections.abc import Callable

from tests.lab.container import Container

CONFIG = """\
environment: {GREETING: hello}
exec:
  mode: tolerant
  pid: shared
  before: env
  command: [/bin/sh, -c, 'echo the command; env']
"""


def test_commands_before_it_have_the_commands_environment(
    boot_root: str, guest_copy: Callable[..., str], container: Callable[..., Container]
) -> None:
    running = container("unshare", console="pipe").start(boot_root, guest_root=guest_copy("plain"), config=CONFIG)
    assert running.wait(20).status == 0
    before, _, after = running.console().decode().partition("the command\n")
    for text in (before, after):
        assert "GREETING=hello\n" in text
        assert "\nPATH=/usr/local/sbin:" in text or text.startswith("PATH=/usr/local/sbin:")

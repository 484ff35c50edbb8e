"""`lcinit demo`: see a rootless guest before writing a configuration for one."""

from __future__ import annotations

from lcinit.cli.arguments import tool_parser

_DESCRIPTION = """\
Boot a guest made of this machine's own /usr, read-only, with tmpfs for the rest; let it tell what it sees and what it
cannot do; power it off through its /dev/initctl. Then run the same guest with a lcinit that stays and supervises it, as
`lcinit run` does: reboot it, power it off. Nothing is downloaded and nothing of this machine is changed."""

_EPILOG = """\
Needs root, and a distribution whose /bin, /sbin and /lib are links into /usr. The guest runs in mount, PID, network,
UTS, IPC, cgroup and user namespaces of its own; its root is an ordinary user outside.

examples:
  sudo lcinit demo
  sudo lcinit demo --shell

exit status: 0 all as it should be, or the shell has ended; 64 usage, 71 it could not be shown, 77 not root, 128+N when
signal N ended it.
"""


def run(args: list[str], program: str = "lcinit demo") -> int:
    """Show it; the exit code. Raises LcinitError."""
    parser = tool_parser(program, _DESCRIPTION, _EPILOG, "[--shell] [--steps] [--show-config]")
    parser.add_argument("--shell", action="store_true", help="an interactive shell in the guest instead")
    parser.add_argument("--steps", action="store_true", help="every step of the plan with its time")
    parser.add_argument("--show-config", action="store_true", help="print the guest's init.yml and boot nothing")
    options = parser.parse_args(args)
    from lcinit.tools import demo

    if options.show_config:
        print(demo.shown_configuration(shell=options.shell, steps=options.steps), end="")
        return 0
    return demo.run(shell=options.shell, steps=options.steps)

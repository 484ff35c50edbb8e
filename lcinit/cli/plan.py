"""`lcinit plan`: what init would do here."""

from __future__ import annotations

from lcinit.cli.arguments import tool_parser

EXAMPLE = """\
example:
  lcinit plan --config init.yml
  lcinit plan --json | python3 -m json.tool

Nothing is changed. What setup.before brings cannot be seen yet, so the guest's init may be judged only when it runs.

exit status: 0, 64 usage, 77 the configuration may not be read, 78 it is wrong or cannot be carried out on this machine.
"""
USAGE = "[--config FILE] [--json] [--override-exec] [--] [ARG...]"


def run(args: list[str], program: str) -> int:
    """Print the plan."""
    import json
    import sys

    parser = tool_parser(
        program,
        "Print every step that init would take here.",
        EXAMPLE,
        USAGE,
    )
    parser.add_argument("--config", metavar="FILE", help="the configuration (default: /mnt/init.yml)")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("--override-exec", action="store_true", help="ARG... replaces exec.command")
    parser.add_argument("arguments", nargs="*", metavar="ARG", help="as for init")
    options = parser.parse_args(args)
    from lcinit.boot.boot import look_and_plan
    from lcinit.config.load import load
    from lcinit.plan import show

    machine, plan = look_and_plan(load(options.config), tuple(options.arguments), override_exec=options.override_exec)
    if options.json:
        json.dump(show.as_data(plan, machine.pid), sys.stdout, indent=2)
        print()
    else:
        print(show.as_text(plan, machine), end="")
    return 0

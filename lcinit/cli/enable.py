"""`lcinit enable`: services start with their runlevels."""

from __future__ import annotations

from lcinit.cli.asking import show_json
from lcinit.cli.service_work import add_no_block, ask, begin_and_wait, service_parser, show_results

_DESCRIPTION = """\
Have services start with their runlevels from now on: each gets a link in /etc/lcinit/enabled."""

_EPILOG = """\
What is enabled by the configuration itself (`services` in init.yml) is so in any case. Nothing is started now but with
--now.

examples:
  lcinit enable nginx
  lcinit enable --now nginx
"""


def run(args: list[str], program: str = "lcinit enable") -> int:
    """Do it; the exit code. Raises LcinitError."""
    return run_setting("Enable", "Start", args, program, _DESCRIPTION, _EPILOG)


def run_setting(method: str, work_too: str, args: list[str], program: str, description: str, epilog: str) -> int:
    """Enable or Disable, and with --now what it means for the present; the exit code. Raises LcinitError."""
    parser = service_parser(program, description, epilog, "[--now [--no-block]] NAME...")
    parser.add_argument("--now", action="store_true", help=f"{work_too.lower()} them, too")
    add_no_block(parser)
    options = parser.parse_args(args)
    if options.no_block and not options.now:
        parser.error("--no-block is for --now")
    changed = ask(options.socket, method, names=options.names)["changed"]
    if not options.json:
        for name in changed:
            print(f"{name} is {method.lower()}d", flush=True)
    if not options.now:
        if options.json:
            show_json({"changed": changed})
        return 0
    results = begin_and_wait(options.socket, work_too, options.names, program, wait=not options.no_block)
    if options.json:
        show_json({"changed": changed, "done": results})
    return show_results(results, work_too, program, as_json=False)

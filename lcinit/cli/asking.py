"""What the commands have in common that talk to a running lcinit."""

from __future__ import annotations

from lcinit.cli.arguments import tool_parser
from lcinit.control.client import PATH, Client

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Iterator
    from typing import Any

EX_INTERRUPTED = 130  # 128 + SIGINT, as a shell has it
EXIT_CODES = """\
exit status: 0, 64 usage, 69 not while lcinit or its guest is in this state, 71 no lcinit supervises a guest here or it
cannot be done, 77 permission.
"""


def asking_parser(
    program: str, description: str, epilog: str, usage: str = "", *, json: bool = False, short_help: bool = True
) -> ArgumentParser:
    """A parser with --socket, and --json where facts are printed. `usage` is what follows these."""
    words = ["[--socket PATH]", "[--json]" if json else "", usage]
    text = f"{epilog}\n{EXIT_CODES}"
    parser = tool_parser(program, description, text, " ".join(word for word in words if word), short_help=short_help)
    parser.add_argument("--socket", metavar="PATH", default=PATH, help=f"the control socket ({PATH})")
    if json:
        parser.add_argument("--json", action="store_true", help="as JSON")
    return parser


def call(path: str, method: str, **parameters: Any) -> dict[str, Any]:
    """One call on a connection of its own. Raises LcinitError."""
    with Client(path) as client:
        return client.call(method, **parameters)


def show_json(value: Any, indent: int | None = None) -> None:
    """Print it as JSON in ASCII: whatever a guest chose is inert on a terminal."""
    import json

    print(json.dumps(value, indent=indent), flush=True)


def show_records(
    path: str,
    method: str,
    name: str,
    *,
    as_json: bool,
    text: Callable[[dict[str, Any]], str],
    wanted: Callable[[dict[str, Any]], bool] = lambda _record: True,
    **parameters: Any,
) -> int:
    """Print the records of Logs or Events that are wanted, one a line, and with `follow` those to come until ctrl-C;
    the exit code."""
    with Client(path) as client:
        replies: Iterator[dict[str, Any]]
        follows = bool(parameters.get("follow"))
        replies = client.stream(method, **parameters) if follows else iter([client.call(method, **parameters)])
        expects = bool(parameters.get("after"))  # what is older than the first is no loss to who asks for all
        try:
            for reply in replies:
                if reply["missed"] and expects:
                    _say_missed(reply["missed"], name)
                for record in filter(wanted, reply[name]):
                    if as_json:
                        show_json(record)
                    else:
                        print(text(record), flush=follows)
                expects = True
        except KeyboardInterrupt:
            return EX_INTERRUPTED
    return 0


def _say_missed(count: int, name: str) -> None:
    import sys

    print(f"lcinit: {count} {name} came faster than they were read and are not kept any more", file=sys.stderr)

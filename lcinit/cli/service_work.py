"""What the commands have in common that ask something of services and wait for it: start, stop and the like."""

from __future__ import annotations

import os
import sys
import time

from lcinit.cli.arguments import tool_parser
from lcinit.cli.asking import show_json
from lcinit.control.client import PATH, Client
from lcinit.control.services import INTERFACE
from lcinit.errors import LcinitError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from typing import Any

EX_FAILED = 1
EXIT_CODES = """\
exit status: 0, 1 a service is not what was asked for, 64 usage, 69 there is no such service or no services at all, 71
no lcinit serves here or it cannot be done, 77 permission, 78 a service's file is wrong.
"""
_CLEAR = "\r\x1b[K"


def service_parser(
    program: str, description: str, epilog: str, usage: str, *, names: str = "+", json: bool = True
) -> ArgumentParser:
    """A parser with --socket, --json and NAMEs, as many as `names` says in argparse's way."""
    words = ["[--socket PATH]", "[--json]" if json else "", usage]
    parser = tool_parser(program, description, f"{epilog}\n{EXIT_CODES}", " ".join(word for word in words if word))
    parser.add_argument("--socket", metavar="PATH", default=PATH, help=f"the control socket ({PATH})")
    if json:
        parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("names", metavar="NAME", nargs=names, help="a service")
    return parser


def ask(path: str, method: str, **parameters: Any) -> dict[str, Any]:
    """One call of io.lcinit.Services that is answered at once. Raises LcinitError."""
    with Client(path) as client:
        return client.call(f"{INTERFACE}.{method}", **parameters)


def run_work(method: str, args: list[str], program: str, description: str, epilog: str) -> int:
    """A command that begins something with services; the exit code. Raises LcinitError."""
    parser = service_parser(program, description, epilog, "[--no-block] NAME...")
    add_no_block(parser)
    options = parser.parse_args(args)
    return work(options.socket, method, options.names, program, wait=not options.no_block, as_json=options.json)


def add_no_block(parser: ArgumentParser) -> None:
    """The option that systemctl(1) has for it."""
    parser.add_argument("--no-block", action="store_true", help="do not wait until it is done")


def work(path: str, method: str, names: list[str], program: str, *, wait: bool = True, as_json: bool = False) -> int:
    """Begin it, wait for its end unless that is not wanted, and say what has failed; the exit code."""
    return show_results(begin_and_wait(path, method, names, program, wait=wait), method, program, as_json=as_json)


def begin_and_wait(path: str, method: str, names: list[str], program: str, *, wait: bool) -> list[dict[str, Any]]:
    """Begin it, and wait for its end unless that is not wanted: the interface's Results."""
    if wait:
        aim = "stopped" if method == "Stop" else "ready"
        reply = _wait(path, method, names, program, aim, begun=True)
    else:
        reply = ask(path, method, names=names, wait=False)
    results: list[dict[str, Any]] = reply["done"]
    return results


def wait_for(path: str, names: list[str], state: str, program: str, timeout: float | None) -> list[dict[str, Any]]:
    """Wait until each is `ready` or `stopped`, or `timeout` seconds are over: the interface's Results."""
    reply = _wait(path, "Wait", names, program, state, begun=False, state=state, timeout=timeout)
    results: list[dict[str, Any]] = reply["services"]
    return results


def show_results(results: list[dict[str, Any]], method: str, program: str, *, as_json: bool) -> int:
    """Print them as JSON if that is wanted, and a line for each that is not what was asked for; the exit code."""
    from lcinit.log import printable
    from lcinit.tools.service_report import failure_text

    if as_json:
        show_json(results)
    failed = [result for result in results if not result["ok"]]
    for result in failed:
        print(printable(f"{program}: {failure_text(result, method)}"), file=sys.stderr)
    return EX_FAILED if failed else 0


def _wait(
    path: str, method: str, names: list[str], program: str, aim: str, *, begun: bool, **parameters: Any
) -> dict[str, Any]:
    """The reply, however long it takes; on a terminal somebody is told meanwhile what it waits for."""
    progress = _Progress(path, names, aim) if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else None
    with Client(path) as client:
        try:
            tick = None if progress is None else progress.tick
            return client.wait(f"{INTERFACE}.{method}", tick, names=names, **parameters)
        except KeyboardInterrupt:
            if progress is not None:
                progress.clear()
            if begun:
                what = f"what was begun goes on (`lcinit status {' '.join(names)}`)"
                print(f"{program}: not waiting any longer: {what}", file=sys.stderr)
            raise
        finally:
            if progress is not None:
                progress.clear()


class _Progress:
    """The line on the terminal that says what is waited for, and how long already."""

    def __init__(self, path: str, names: list[str], aim: str) -> None:
        self._path = path
        self._names = names
        self._aim = aim
        self._began = time.monotonic()
        self._client: Client | None = None
        self._shown = False

    def tick(self) -> None:
        """Show how it is now."""
        import shutil

        from lcinit.tools.service_report import waiting_text

        text = waiting_text(self._services(), self._names, self._aim, time.monotonic() - self._began)
        width = shutil.get_terminal_size((80, 24)).columns
        self._shown = True  # before it is: ctrl-C may come in between
        print(f"{_CLEAR}{text[: width - 1]}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Take the line away."""
        if self._shown:
            print(_CLEAR, end="", file=sys.stderr, flush=True)
            self._shown = False
        if self._client is not None:
            self._client.close()
            self._client = None

    def _services(self) -> list[dict[str, Any]]:
        """The services, none where lcinit does not say now: the one that waits hears what is wrong."""
        try:
            if self._client is None:
                self._client = Client(self._path, timeout=1.0)
            services: list[dict[str, Any]] = self._client.call(f"{INTERFACE}.List", names=self._names)["services"]
        except LcinitError:
            if self._client is not None:
                self._client.close()
                self._client = None
            return []
        return services

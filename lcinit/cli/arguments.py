"""What the argument parsers of the stand-alone tools have in common. argparse is imported when one is made."""

from __future__ import annotations

from lcinit import __version__
from lcinit.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argparse import ArgumentParser
    from typing import NoReturn


def tool_parser(program: str, description: str, epilog: str, usage: str, *, short_help: bool = True) -> ArgumentParser:
    """A parser with --version, texts kept as they are written, and UsageError instead of exit code 2.

    `usage` is the command line without the program's name. Without `short_help` -h is free to mean something else.
    """
    import argparse

    class Parser(argparse.ArgumentParser):
        def error(self, message: str) -> NoReturn:
            raise UsageError(message, hint=f"see {program} --help")

    parser = Parser(
        prog=program,
        usage=f"{program} {usage}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=short_help,
    )
    if not short_help:
        parser.add_argument("--help", action="help", help="show this help message and exit")
    parser.add_argument("--version", action="version", version=f"{program} (lcinit) {__version__}")
    return parser


def add_rest(parser: ArgumentParser, name: str, metavar: str, what: str) -> None:
    """All words from here on, options or not, are the argument `name`; there may be none."""
    import argparse

    rest = parser.add_argument(name, metavar=metavar, nargs=argparse.REMAINDER, help=what)
    rest.required = False  # argparse names it among what is missing else


def without_dashes(words: list[str]) -> list[str]:
    """The command in such words, without the `--` before it."""
    return words[1:] if words[:1] == ["--"] else words

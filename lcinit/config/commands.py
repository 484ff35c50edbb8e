"""Commands: a string of words, a list of words, or a mapping with what else the command needs."""

from __future__ import annotations

from lcinit.config.compound import Field, Fields, ListOf, MapOf
from lcinit.config.diagnostics import Unfit, quoted
from lcinit.config.names import DURATION, NOTHING, PATH, VARIABLE, account
from lcinit.config.shapes import AnyText, Flag, Forms, Text, Then
from lcinit.config.values import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Final

_BLANKS: Final = " \t\r\n"


def split_words(text: str) -> list[str]:
    """The words of `text` as shlex.split(text) gives them: POSIX quotes and backslashes, `#` literal, no shell.

    ValueError with the reason when a quotation or an escape is not finished. Written out because importing shlex
    costs PID 1 more than splitting every command of a configuration.
    """
    words: list[str] = []
    word: list[str] | None = None
    quote = ""
    characters = iter(text)
    for c in characters:
        if not quote and c in _BLANKS:
            if word is not None:
                words.append("".join(word))
                word = None
            continue
        if word is None:
            word = []
        if c == quote:
            quote = ""
        elif c == "\\" and quote != "'":
            escaped = next(characters, "")
            if not escaped:
                raise ValueError("nothing follows the last \\")
            # Within double quotes a backslash escapes itself and the quote; before all else it stays.
            word.append(escaped if not quote or escaped in '"\\' else f"\\{escaped}")
        elif not quote and c in "'\"":
            quote = c
        else:
            word.append(c)
    if quote:
        raise ValueError(f"the quotation that {quote} begins is not closed")
    if word is not None:
        words.append("".join(word))
    return words


def _argv(words: Any) -> tuple[str, ...]:
    if not words or not words[0]:
        raise Unfit("names no program", "write a program and its arguments")
    return tuple(words)


def _parse_words(text: str) -> tuple[str, ...]:
    try:
        words = split_words(text)
    except ValueError as error:
        right = "close it, or write the words as a list"
        raise Unfit(f"{quoted(text)} cannot be split into words: {error}", right) from None
    return _argv(words)


def _command(argv: tuple[str, ...]) -> Command:
    return Command(argv=argv)


_WORDS_TEXT: Final = Text("a command", convert=_parse_words, shown=r"[^ \t\r\n]")
_WORDS_LIST: Final = Then(ListOf(AnyText("a word"), "a list of words", least=1), _argv)
WORDS: Final = Forms("a command as text or as a list of words", _WORDS_TEXT, _WORDS_LIST)
"""Reads into an argv."""

USER: Final = Forms("a user's name or id", NOTHING, account("a user's name or id"))
GROUP: Final = Forms("a group's name or id", NOTHING, account("a group's name or id"))
ENVIRONMENT: Final = MapOf(VARIABLE, AnyText("text"), "a mapping of variables to text")

COMMON_FIELDS: Final = (
    Field("command", WORDS, "The program and its arguments.", to="argv", required=True),
    Field("environment", ENVIRONMENT, "Variables on top of the phase's."),
    Field("cwd", Forms("an absolute path or null", NOTHING, PATH), "The directory to start in."),
    Field("user", USER, "The user to run as."),
    Field("group", GROUP, "The group to run as."),
)
"""What every command has."""
_ALONE: Final = "write it in a command of a phase, such as exec.before"

EXEC_COMMAND: Final = Forms(
    "a command: text, a list of words, or {command, environment, cwd, user, group}",
    Then(_WORDS_TEXT, _command),
    Then(_WORDS_LIST, _command),
    Fields(
        Command,
        "{command, environment, cwd, user, group}",
        *COMMON_FIELDS,
        refused=dict.fromkeys(("input", "timeout", "ignore_errors"), f"the guest's init has none; {_ALONE}"),
    ),
)
"""What takes over as the guest's init."""

COMMAND: Final = Forms(
    "a command: text, a list of words, or {command, input, environment, cwd, user, group, timeout, ignore_errors}",
    Then(_WORDS_TEXT, _command),
    Then(_WORDS_LIST, _command),
    Fields(
        Command,
        "{command, input, environment, cwd, user, group, timeout, ignore_errors}",
        *COMMON_FIELDS,
        Field("input", Forms("text or null", NOTHING, AnyText("text")), "What it reads from stdin; else /dev/null."),
        Field("timeout", Forms("a duration or null", NOTHING, DURATION), "How long it may run."),
        Field("ignore_errors", Flag(), "Go on when it fails."),
    ),
)
"""One command of a phase."""

COMMANDS: Final = ListOf(COMMAND, "a list of commands", single=True)
"""One command or a list of them."""

"""The one program: which tool it is depends on the name it is called by, or on its first argument."""

from __future__ import annotations

import errno
import io
import os
import sys

from lcinit import __version__
from lcinit.errors import EX_OSERR, EX_USAGE, LcinitError
from lcinit.log import printable  # now: a tool may have entered a place where nothing can be imported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Tool(Protocol):
        """A module of this package that is one command."""

        def run(self, args: list[str], program: str) -> int:
            """Do it; the exit code."""


# Command → what `lcinit --help` says of it. Each is the module of the same name (a dash is an underscore there).
COMMANDS = {
    "init": "be PID 1: prepare the guest root and hand over to the guest's init",
    "plan": "print every step that init would take here, and change nothing",
    "check": "validate configuration files",
    "schema": "print the JSON Schema of a configuration",
    "doctor": "tell what this kernel and container allow, and what to do where they do not",
    "overlay": "overlay layers over a directory",
    "mount-idmapped": "make an idmapped bind mount",
    "tolerant": "run a file or a directory of files, executable or not",
    "run": "run a guest from a directory or a configuration file, without a manager",
    "contain": "run a guest from a directory, with the id maps of contain",
    "pseudo": "run a command as root of a new user namespace",
    "initctl": "ask the init behind a FIFO for a runlevel",
    "telinit": "the same as initctl",
    "attach": "run a command, or a shell, in the guest",
    "console": "show the guest's console",
    "inject": "run a command in a container of any origin",
    "status": "show the state of a running lcinit and its guest or services",
    "start": "start services",
    "stop": "stop services",
    "restart": "stop and start again: services, or the guest",
    "reload": "have services read their own configuration again",
    "enable": "have services start with their runlevels",
    "disable": "have them not",
    "reset-failed": "forget that services have failed",
    "wait": "wait until services are up, or down",
    "daemon-reload": "read the files of services again",
    "runlevel": "print the runlevel before and the present one",
    "events": "show what happened to the guest and its services",
    "logs": "show what a running lcinit had to say",
    "poweroff": "ask the guest to power off",
    "halt": "ask the guest to halt",
    "reboot": "ask the guest to reboot",
    "shutdown": "ask for one of these in the words of shutdown(8)",
    "kill": "send the guest, or a service, a signal",
    "freeze": "stop the guest's processes where they stand",
    "thaw": "let them go on",
    "log-level": "print or set how much a running lcinit says",
    "reexec": "replace the running lcinit by the one on disk",
    "links": "make the symbolic links that give lcinit its other names",
    "image": "build a boot root",
    "demo": "boot a demonstration guest made of this machine's own /usr",
    "completion": "print the bash completion",
}

# Names that lcinit answers to when it is called by them (through a symbolic link).
CALLED = (
    "init",
    "telinit",
    "initctl",
    "overlay",
    "mount-idmapped",
    "tolerant",
    "contain",
    "pseudo",
    "inject",
    "shutdown",
    "halt",
    "poweroff",
    "reboot",
    "runlevel",
)

# What write(2) says of a full disk, a reader that is gone and a terminal that hung up. Tools make LcinitErrors of what
# their own calls say, so that one of these without a file's name can only be from standard output or error.
_OUTPUT_ERRORS = (errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)

EPILOG = """\
`lcinit COMMAND --help` tells all about one of them. Exit codes are those of sysexits(3): 64 usage, 71 system error,
77 permission, 78 configuration; a command that cannot be run gives 126 and one that is not there 127.

example:
  lcinit check /mnt/init.yml && lcinit plan --config /mnt/init.yml
"""


def main(argv: list[str]) -> int:
    """Run the tool that `argv` names and return its exit code; errors become one line each on standard error."""
    called = os.path.basename(argv[0])
    if called in CALLED:
        name, arguments, program = called, argv[1:], called
    else:
        name, arguments = (argv[1], argv[2:]) if len(argv) > 1 else ("", [])
        program = f"lcinit {name}" if name in COMMANDS else "lcinit"
    code = 0
    try:
        code = _told(name, arguments, program)
        if sys.stdout is not None:
            sys.stdout.flush()  # what cannot be written is found out here, not in the interpreter's end
        return code
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS or error.filename is not None:
            raise
        return _output_failed(error, program, told=code)
    except KeyboardInterrupt:
        return _interrupted()


def _told(name: str, arguments: list[str], program: str) -> int:
    """The exit code of the command, whose LcinitError is told."""
    try:
        return _run(name, arguments, program)
    except LcinitError as error:
        # the problems of a file stand bare: their lines begin with the place, which editors jump to
        prefix = "" if hasattr(error, "problems") else f"{program}: "
        for line in str(error).split("\n"):
            print(f"{prefix}{printable(line)}", file=sys.stderr)  # a guest may have named what it is about
        return error.exit_code


def _run(name: str, arguments: list[str], program: str) -> int:
    """The command itself; its exit code. Raises LcinitError, and OSError of standard output."""
    if name in ("-h", "--help"):
        print(usage(), end="")
        return 0
    if name == "--version":
        print(f"lcinit {__version__}")
        return 0
    if not name:
        print(usage(), end="", file=sys.stderr)
        return EX_USAGE
    if name not in COMMANDS:
        print(f"lcinit: there is no command {name!r}; `lcinit --help` lists them", file=sys.stderr)
        return EX_USAGE
    if name != "init":
        _escape_what_cannot_be_encoded()
    try:
        return tool(name).run(arguments, program)
    except SystemExit as end:  # argparse, after --help and --version
        if end.code not in (None, 0):
            raise
        return 0


def _escape_what_cannot_be_encoded() -> None:
    """A configuration may hold what the locale's encoding has not: it is shown escaped rather than not at all."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper) and stream.errors == "strict":
            stream.reconfigure(errors="backslashreplace")


def _output_failed(error: OSError, program: str, *, told: int) -> int:
    """Tell that output could not be written, unless its reader has seen enough; keep Python from trying again.

    `told` is the exit code of what has been told already, 0 for nothing.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if told:
        return told
    if error.errno != errno.EPIPE:
        try:
            print(f"{program}: cannot write the output: {error.strerror}", file=sys.stderr)
        except OSError:
            os.dup2(1, 2)  # standard error is what fails: only the exit code is left to tell it
    return EX_OSERR


def _interrupted() -> int:
    """End as ctrl-C ends a program that does not handle it, which is what a shell looks for; say nothing of it."""
    import signal

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    os.kill(os.getpid(), signal.SIGINT)
    return 128 + signal.SIGINT  # it is blocked


def tool(name: str) -> Tool:
    """The module of a command: nothing of the others is imported."""
    module = f"lcinit.cli.{name.replace('-', '_')}"
    __import__(module)
    return sys.modules[module]


def usage() -> str:
    """The text of `lcinit --help`."""
    width = max(len(name) for name in COMMANDS)
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    head = "usage: lcinit COMMAND [ARGUMENT...]\n\nThe /sbin/init of a container.\n\ncommands:\n"
    return head + "\n".join(lines) + "\n\n" + EPILOG


def console_script() -> int:
    """Entry point of the installed program. As init it starts itself anew, isolated: PYTHON* variables and the user's
    site directory are no business of PID 1's."""
    if not sys.flags.isolated and (os.path.basename(sys.argv[0]) == "init" or sys.argv[1:2] == ["init"]):
        from lcinit.boot.own import program

        name, arguments = os.path.basename(sys.argv[0]), tuple(sys.argv[1:])
        again = program(name, arguments)
        os.execv(again[0], again)
    return main(sys.argv)

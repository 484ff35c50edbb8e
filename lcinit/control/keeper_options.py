"""The keeper's command line. It is written by `boot.handoff` alone, and read by hand: argparse would stay in memory."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
else:
    import _signal as signal  # without the half that imports enum

USAGE = """\
usage: keeper [--pid PID] [--initctl-dir FD --owner UID:GID [--name NAME]] [--poweroff SIG] [--halt SIG] [--reboot SIG]
              [--repeat] [--foreground] [--console FD] [--started FD] [--ready FD]
              [--reboot-calls FD --user-namespace DEVICE:INODE [--machine]]
  --pid PID          the init that is sent the signals (1)
  --initctl-dir FD   keep the FIFO NAME (initctl) in the directory of this handle, owned by UID:GID
  --poweroff, --halt, --reboot SIG   the signal that asks the init for it: a name or a number
  --repeat           the init shows neither handler nor block: send without waiting, and again
  --foreground       end when SIGTERM, SIGINT or SIGHUP comes
  --console FD       relay between this pty master and the standard input and output
  --reboot-calls FD  answer the calls of reboot(2) that come through this seccomp listener
  --user-namespace DEVICE:INODE   the guest's: who has CAP_SYS_BOOT in it may make such a call
  --machine          the guest's end is the machine's
  --started FD       send no signal before the other ends of this pipe are closed
  --ready FD         write one byte to this descriptor, and close it, when everything is set up
"""


class Options:
    """The command line. Raises ValueError with what is wrong."""

    def __init__(self, arguments: list[str]) -> None:
        self.pid = 1
        self.directory = self.console = self.started = self.ready = self.reboot_calls = -1
        self.owner = self.user_namespace = (0, 0)
        self.name = "initctl"
        self.signals: dict[str, int] = {}
        self.repeat = self.foreground = self.machine = False
        rest = iter(arguments)
        for option in rest:
            if option in ("--repeat", "--foreground", "--machine"):
                setattr(self, option[2:], True)
                continue
            value = next(rest, None)
            if value is None:
                raise ValueError(f"{option} needs a value")
            self._take(option, value)

    def _take(self, option: str, value: str) -> None:
        if option == "--owner":
            self.owner = _pair(option, value, "UID:GID")
        elif option == "--user-namespace":
            self.user_namespace = _pair(option, value, "DEVICE:INODE")
        elif option == "--name":
            self.name = value
        elif option in ("--poweroff", "--halt", "--reboot"):
            self.signals[option[2:]] = signal_number(value)
        elif option == "--pid":
            self.pid = _number(option, value)
        elif option == "--initctl-dir":
            self.directory = _number(option, value)
        elif option in ("--console", "--started", "--ready", "--reboot-calls"):
            setattr(self, option[2:].replace("-", "_"), _number(option, value))
        else:
            raise ValueError(f"{option!r} is no option")

    @property
    def descriptors(self) -> set[int]:
        """What was handed over, beside the standard streams."""
        handed = (self.directory, self.console, self.started, self.ready, self.reboot_calls)
        return {fd for fd in handed if fd >= 0}


def _pair(option: str, text: str, form: str) -> tuple[int, int]:
    first, colon, second = text.partition(":")
    if not colon:
        raise ValueError(f"{option} {text!r} is not {form}")
    return _number(option, first), _number(option, second)


def _number(option: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{option} {text!r} is not a number")
    return int(text)


def signal_number(text: str) -> int:
    """A signal by number, name (`SIGTERM`) or place (`SIGRTMIN+4`). Raises ValueError for none (signal(7))."""
    base, plus, offset = text.partition("+")
    if text.isascii() and text.isdigit():
        number = int(text)
    elif base == "SIGRTMIN" and (not plus or (offset.isascii() and offset.isdigit())):
        number = signal.SIGRTMIN + int(offset or 0)
    else:
        found = getattr(signal, text, None) if text.startswith("SIG") and "_" not in text else None
        number = int(found) if found is not None else 0
    if not 1 <= number <= signal.SIGRTMAX:
        raise ValueError(f"{text!r} is not a signal")
    return number

"""What the demonstration tells: the guest's own report turned into text for a reader at 80 columns. Pure."""

from __future__ import annotations

import textwrap

from lcinit.linux.capabilities import CAPABILITIES
from lcinit.linux.mountinfo import MountInfo
from lcinit.record import Record
from lcinit.tools.demo_guest import Shape

WIDTH = 80

# What the guest tries, in its script's order: name → what it is, and what it is that refuses it.
ATTEMPTS = {
    "usr-write": ("write to /usr", "mounted read-only"),
    "usr-remount": ("remount /usr writable", "locked: it was mounted before the guest had a user namespace"),
    "usr-unmount": ("unmount /usr", "locked likewise: umount(8) calls the kernel's EINVAL so"),
    "proc-dev": ("allow devices on /proc", "nodev is locked too"),
    "disk": ("make a node of the machine's disk", "mknod needs privilege outside"),
    "kmsg": ("read the machine's kernel log", "/dev is the guest's own, with the few nodes it needs"),
    "sysrq": ("press sysrq", "the file is outer root's"),
    "core-pattern": ("set the core_pattern", "outer root's likewise"),
    "outside": ("read a file beside the guest's root", "pivot_root: the old root is detached, not hidden"),
    "keeper": (
        "look through lcinit's /proc/PID/root",
        "what lcinit leaves running is outside the guest's user namespace",
    ),
}


class Report(Record):
    """The lines of the guest's report: single facts, its mounts, and what became of each attempt."""

    facts: tuple[tuple[str, str], ...]
    mounts: tuple[str, ...]
    attempts: tuple[tuple[str, str], ...]

    def __contains__(self, key: str) -> bool:
        return any(name == key for name, _ in self.facts)

    def fact(self, key: str) -> str:
        """A single fact; empty where the guest did not tell it."""
        return next((text for name, text in self.facts if name == key), "")


def parse(lines: list[str]) -> Report:
    """The report from the guest's output; lines that are none of it are left out."""
    facts, mounts, attempts = [], [], []
    for line in lines:
        key, tab, text = line.partition("\t")
        if not tab:
            continue
        if key == "mount":
            mounts.append(text)
        elif key.startswith("try "):
            attempts.append((key[4:], text))
        else:
            facts.append((key, text))
    return Report(facts=tuple(facts), mounts=tuple(mounts), attempts=tuple(attempts))


def introduction(shape: Shape) -> str:
    """What is about to happen."""
    return _paragraph(
        f"A guest made of this machine's own /usr, read-only, and tmpfs for the rest. Its root is user {shape.users} "
        "outside. It lives in namespaces of its own; nothing on this machine is changed."
    )


def phases(errors: list[str]) -> list[tuple[str, str]]:
    """Phase and time, from the line that lcinit prints before it hands over: `PHASE N ms, ...; exec ...`."""
    for line in errors:
        times, semicolon, what = line.removeprefix("lcinit: ").partition("; exec ")
        if semicolon and what:
            return [(entry.rpartition(" ")[0].rpartition(" ")[0], entry) for entry in times.split(", ")]
    return []


def boot(errors: list[str], seconds: float, *, steps: bool) -> str:
    """The phases of the plan and their times; with `steps` every step's. `seconds`: until the guest had reported."""
    lines = [_heading("The boot", f"{seconds * 1000:.0f} ms from the first namespace to the end of the guest's report")]
    if steps:
        lines += [f"  {_cut(line.removeprefix('lcinit: '), WIDTH - 2)}" for line in errors if " ms  " in line]
    for phase, entry in phases(errors):
        lines.append(f"  {phase:<14}{entry[len(phase) :].strip():>7}  {_PHASES.get(phase, '')}".rstrip())
    return "\n".join(lines) + "\n"


_PHASES = {
    "setup.before": "a private mount namespace",
    "setup": "/proc, /dev, mounts, namespaces, the id map",
    "root": "pivot into the guest root; capabilities dropped",
    "exec": "",
}


_MOUNTS = (
    "Its mounts. All but mqueue, devpts, sysfs and cgroup2, which only namespaces of its own can hold, were attached "
    "before it had a user namespace: so they are locked, and it cannot undo them or their flags."
)


def seen(report: Report) -> str:
    """What the guest sees of itself."""
    mask = int(report.fact("capabilities") or "0", 16)
    missing = [name for name, number in CAPABILITIES.items() if not mask >> number & 1]
    inside, outside, size = (report.fact("uid_map").split() + ["?"] * 3)[:3]
    facts = (
        ("PID", f"{report.fact('pid')}: lcinit has handed PID 1 over to the guest's init"),
        ("user", f"{report.fact('uid')}, which is {outside} outside: the map is {inside} {outside} {size}"),
        ("/usr is of", f"user {report.fact('owner')}" + (": idmapped" if report.fact("owner") == "0" else ": nobody")),
        ("host name", report.fact("hostname")),
        ("processes", f"{report.fact('processes')}, and none of the machine's"),
        ("interfaces", report.fact("interfaces")),
        ("/dev", report.fact("dev")),
        ("capabilities", f"all in its own user namespace but {' '.join(missing)}"),
    )
    lines = [_heading("Inside", "as the guest's first process tells it")]
    lines += [_entry(name, text) for name, text in facts]
    lines += ["", _paragraph(_MOUNTS, "  ") + "  mount             type     ro  nosuid nodev noexec"]
    for line in report.mounts:
        entry = MountInfo(line)
        flags = [word if word in entry.options else "-" for word in ("ro", "nosuid", "nodev", "noexec")]
        row = f"  {entry.mount_point:<17} {entry.fstype:<8} {flags[0]:<3} {flags[1]:<6} {flags[2]:<5} {flags[3]}"
        lines.append(row)
    return "\n".join(lines) + "\n"


def refused(report: Report) -> str:
    """What the guest tried and how it was answered."""
    lines = [_heading("Out of reach", "what the guest's root has just tried")]
    for name, result in report.attempts:
        what, why = ATTEMPTS[name]
        if result == "WORKED":
            lines.append(f"  {what:<38} IT WORKED, and must not")
        elif result == "ABSENT":
            lines.append(f"  {what:<38} not tried: this machine has none")
        else:
            lines.append(f"  {what:<38} {_cut(result, WIDTH - 41)}")
            lines += textwrap.wrap(why, WIDTH, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines) + "\n"


def broken(report: Report) -> list[str]:
    """What the guest could do and must not, or did not even report."""
    results = dict(report.attempts)
    return [what for name, (what, _) in ATTEMPTS.items() if results.get(name, "WORKED") == "WORKED"]


def ending(status: int, seconds: float) -> str:
    """How the guest ended."""
    return (
        _heading("The end", "runlevel 0 was written to the guest's /dev/initctl, as telinit does")
        + f"\n  Its init got SIGTERM and ended with status {status} after {seconds * 1000:.0f} ms.\n"
    )


def staying(report: Report, up: float, again: float, gone: float, status: int) -> str:
    """What a lcinit that stays does for its guest; times in seconds."""
    lines = [_heading("It stays", "`lcinit run` starts the guest again and supervises it from outside")]
    lines += [
        _entry("up", f"after {up * 1000:.0f} ms"),
        _entry("processes", f"{report.fact('processes')}: the guest sees neither lcinit nor the machine"),
        _entry("reboot", f"SIGRTMIN+5 to lcinit: its init was asked, and was up again after {again * 1000:.0f} ms"),
        _entry("poweroff", f"SIGTERM to lcinit: the guest was gone after {gone * 1000:.0f} ms, status {status}"),
    ]
    return "\n".join(lines) + "\n"


def outlook(whole: float) -> str:
    """The last words. `whole`: seconds from the first namespace to the end."""
    return (
        "The namespaces, mounts and cgroups of both are gone. The demonstration took\n"
        + f"{whole:.2f} s.\n\n"
        + "  lcinit run DIR               a guest of your own, without a manager\n"
        + "  lcinit demo --shell          a shell in such a guest\n"
        + "  lcinit demo --show-config    the init.yml that was used\n"
        + "  lcinit doctor                what this machine allows"
    )


def _heading(title: str, what: str) -> str:
    return f"{title}: {what}"


def _entry(name: str, text: str) -> str:
    return textwrap.fill(
        text, WIDTH, initial_indent=f"  {name:<13}", subsequent_indent=" " * 15, break_on_hyphens=False
    )


def _paragraph(text: str, indent: str = "") -> str:
    return textwrap.fill(text, WIDTH, initial_indent=indent, subsequent_indent=indent) + "\n"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."

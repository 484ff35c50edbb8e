"""One service file, declared once: what it is read by, and what `lcinit schema --service` prints."""

from __future__ import annotations

from lcinit.config.commands import COMMANDS, COMMON_FIELDS, ENVIRONMENT, EXEC_COMMAND, GROUP, USER
from lcinit.config.compound import Field, Fields, ListOf, MapOf
from lcinit.config.document import NULL
from lcinit.config.names import CAPABILITY, DURATION, LIMIT, NOTHING, PATH, RLIMITS, SIGNAL, account, make_limit
from lcinit.config.service_checks import within
from lcinit.config.service_names import (
    CPU,
    DESCRIPTION,
    DEVICE_PATH,
    ENVIRONMENT_FILE,
    HTTP,
    SERVICE_NAME,
    SIZE,
    TCP,
    UMASK,
    Pause,
    Restart,
    Runlevel,
)
from lcinit.config.service_values import CgroupLimits, Health, Service, ServiceLog, ServicePart
from lcinit.config.shapes import INVALID, Choice, Flag, Forms, Number, Then
from lcinit.config.values import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Final

    from lcinit.config.document import Node
    from lcinit.config.shapes import Json, Reading

_WORDS: Final = Forms(
    "a command: text, or a list of words",
    *(Then(form, lambda command: command.argv) for form in EXEC_COMMAND.forms[:2]),
)
_CHECK: Final = Forms(
    EXEC_COMMAND.expects,
    *EXEC_COMMAND.forms[:2],
    Fields(
        Command,
        "{command, environment, cwd, user, group}",
        *COMMON_FIELDS,
        refused={
            "input": "a check reads nothing; leave it out",
            "timeout": "write it beside exec",
            "ignore_errors": "its failure is what the check is for; leave it out",
        },
    ),
)
_NAMES: Final = ListOf(SERVICE_NAME, "a list of services' names", single=True)
_TIME: Final = Forms("a duration, or null for no limit", NOTHING, DURATION)
_PAUSE: Final = Forms("a duration, or 0", Then(Pause(), float), DURATION)
_STATUSES: Final = ListOf(
    Forms("an exit code or a signal's name", Number(0, 255, "an exit code from 0 to 255"), SIGNAL),
    "a list of exit codes and signals' names",
    single=True,
)
_COUNT: Final = Forms("a count, or null for no limit", NOTHING, Number(1, 2**31 - 1, "a count above 0"))


def _make_cgroup(values: dict[str, Any], node: Node, path: str, reading: Reading) -> Any:
    high, most = values.get("memory_high"), values.get("memory_max")
    if high is not None and most is not None and high > most:
        what = "is above memory_max, and has no effect"
        return reading.problem(
            node.get("memory_high") or node, f"{path}.memory_high", what, "write less, or leave it out"
        )
    return CgroupLimits(**values)


_CGROUP: Final = Fields(
    CgroupLimits,
    "{memory_max, memory_high, cpu_max, cpu_weight, pids_max}",
    Field("memory_max", Forms("a size or null", NOTHING, SIZE), "Bytes that its processes may have together."),
    Field("memory_high", Forms("a size or null", NOTHING, SIZE), "Bytes above which they are slowed down."),
    Field("cpu_max", Forms("a percentage or null", NOTHING, CPU), "Processor time, 100% is one processor."),
    Field(
        "cpu_weight",
        Forms("1 to 10000, or null", NOTHING, Number(1, 10000, "1 to 10000")),
        "Its share beside others; 100 is the default.",
    ),
    Field("pids_max", _COUNT, "How many processes and threads it may have."),
    finish=_make_cgroup,
)
_HEALTH_CHECKS: Final = ("exec", "tcp", "http")


def _make_health(values: dict[str, Any], node: Node, path: str, reading: Reading) -> Any:
    given = [key for key in _HEALTH_CHECKS if node.get(key) is not None]
    if len(given) != 1:
        what = f"holds {' and '.join(given)}" if given else "says nothing to check"
        return reading.problem(node, path, what, "write one of exec, tcp and http")
    return Health(**values)


class _Health(Fields):
    """Exactly one check."""

    def json(self) -> Json:
        return {**super().json(), "oneOf": [{"required": [key]} for key in _HEALTH_CHECKS]}


_HEALTH: Final = Forms(
    "{exec | tcp | http, start_period, interval, timeout, failures, action}, or null",
    NOTHING,
    _Health(
        Health,
        "{exec | tcp | http, start_period, interval, timeout, failures, action}",
        Field("exec", _CHECK, "A command that ends with 0 when all is well."),
        Field("tcp", TCP, "ADDRESS:PORT that takes a connection."),
        Field("http", HTTP, "A URL that is answered with a status from 200 to 399."),
        Field("start_period", _PAUSE, "Failures that early do not count."),
        Field("interval", DURATION, "From the end of a check to the next one."),
        Field("timeout", DURATION, "How long a check may take."),
        Field("failures", Number(1, 1000, "a count from 1 to 1000"), "So many in a row, and the action is taken."),
        Field("action", Choice(("restart", "stop", "none")), "What is done then."),
        finish=_make_health,
    ),
)
_LOG_TO: Final = ("console", "file", "both", "none")
_OF_LOGS: Final = {
    "format": ("console", "both"),
    **dict.fromkeys(("max_size", "max_age", "max_files"), ("file", "both")),
    **dict.fromkeys(("rate_limit_burst", "rate_limit_interval"), ("console", "file", "both")),
}
"""Where each key of a log means something."""


def _make_log(values: dict[str, Any], node: Node, path: str, reading: Reading) -> Any:
    log = ServiceLog(**values)
    right = True
    for key, places in _OF_LOGS.items():
        if values.get(key, getattr(ServiceLog, key)) == getattr(ServiceLog, key):
            continue
        what = ""
        if log.to not in places:
            what, write = f"has no effect with to: {log.to}", f"write to: {places[0]}"
        elif key == "rate_limit_interval" and log.rate_limit_burst is None:
            what, write = "has no effect without rate_limit_burst", "write that, too"
        if what:
            right = False
            reading.problem(node.get(key) or node, f"{path}.{key}", what, f"{write}, or leave it out")
    return log if right else INVALID


_LOG: Final = Forms(
    "console, file, both, none, or {to, format, …}",
    Choice({word: ServiceLog(to=word) for word in _LOG_TO}),
    Fields(
        ServiceLog,
        "{to, format, max_size, max_age, max_files, rate_limit_burst, rate_limit_interval}",
        Field("to", Choice(_LOG_TO), "Where stdout and stderr go."),
        Field("format", Choice(("text", "json")), "Of lines on the console."),
        Field("max_size", SIZE, "Bytes after which a file is rotated."),
        Field("max_age", Forms("a duration or null", NOTHING, DURATION), "How old a file becomes."),
        Field("max_files", Number(0, 1000, "a count from 0 to 1000"), "How many older files are kept."),
        Field("rate_limit_burst", _COUNT, "Lines within rate_limit_interval; what is more is dropped and counted."),
        Field("rate_limit_interval", DURATION, "See rate_limit_burst."),
        finish=_make_log,
    ),
)


def _make_part(values: dict[str, Any], node: Node, path: str, reading: Reading) -> ServicePart:
    return ServicePart(
        name=path.rpartition(".")[2],
        origin=reading.problems.name,
        given=tuple(values.items()),
        places=tuple([(value.line, value.column) for _, value in node.value]),
        place=(node.line, node.column),
        path=path,
    )


def _other_words() -> Mapping[str, str]:
    from lcinit.config.other_words import OF_SERVICES  # needed for a mistake only

    return OF_SERVICES


SERVICE: Final = Fields(
    ServicePart,
    "the keys of a service",
    Field("description", DESCRIPTION, "One line for people."),
    Field("command", _WORDS, "The program and its arguments."),
    Field("type", Choice(("simple", "notify", "notify-fd", "forking", "oneshot")), "How it says that it is ready."),
    Field("notify_fd", Number(3, 255, "a descriptor from 3 to 255"), "notify-fd: the descriptor that it writes to."),
    Field("notify_access", Choice(("main", "all")), "Whose notifications count: the main process', or all of its."),
    Field("pid_file", Forms("an absolute path or null", NOTHING, PATH), "forking: the file that names its process."),
    Field("remain_after_exit", Flag(), "oneshot: it counts as up when it has done its work."),
    Field("requires", _NAMES, "Pulled in, started before, and it goes down with them."),
    Field("wants", _NAMES, "Pulled in and started before; it comes up without them, too."),
    Field("start_after", _NAMES, "Started before, where they start at all."),
    Field("start_before", _NAMES, "Started after."),
    Field(
        "runlevels",
        ListOf(Runlevel(), "a list of runlevels: 1 to 5, or S", single=True, least=1),
        "Where it runs, once it is enabled.",
    ),
    Field("start_pre", COMMANDS, "Before its command."),
    Field("start_post", COMMANDS, "Once it is ready, before others see that it is up."),
    Field("stop", COMMANDS, "Before its stop signal."),
    Field("stop_post", COMMANDS, "When it is down, whatever the reason."),
    Field("reload", COMMANDS, "Have it read its configuration again."),
    Field("reload_signal", Forms("a signal's name or null", NOTHING, SIGNAL), "The same by a signal."),
    Field("start_timeout", _TIME, "Until it is ready."),
    Field("stop_timeout", _TIME, "From its stop signal to SIGKILL."),
    Field("stop_signal", SIGNAL, "What asks it to end."),
    Field(
        "kill_mode",
        Choice(("mixed", "control-group", "process")),
        "mixed: its main process is asked, then all is killed; process: that one alone.",
    ),
    Field(
        "restart",
        Restart(("no", "on-failure", "always", "on-watchdog")),
        "Whether it comes again when it ends by itself.",
    ),
    Field("restart_delay", _PAUSE, "Before the second restart in a row; then doubled. The first is immediate."),
    Field("restart_max_delay", _PAUSE, "The longest delay."),
    Field(
        "restart_jitter",
        Then(Number(0, 1, "a share from 0 to 1", decimals=True), float),
        "The share of a delay by which it varies.",
    ),
    Field("restart_reset", _PAUSE, "Up for so long, and delays begin anew."),
    Field(
        "start_limit_burst",
        Forms(
            "a count, or 0 or null for no limit",
            NOTHING,
            Then(Number(0, 10000, "a count, or 0 for no limit"), lambda n: n or None),
        ),
        "More starts than these within start_limit_interval are a failure.",
    ),
    Field("start_limit_interval", DURATION, "See start_limit_burst."),
    Field("success_exit_status", _STATUSES, "Ends that are well, beside 0."),
    Field("restart_prevent_exit_status", _STATUSES, "Ends after which it does not come again."),
    Field("essential", Flag(), "Its end stops the container with its code."),
    Field("watchdog", Forms("a duration or null", NOTHING, DURATION), "It says WATCHDOG=1 so often, or hangs."),
    Field("watchdog_signal", SIGNAL, "What ends it when it hangs."),
    Field("health", _HEALTH, "A check that is repeated while it is up."),
    Field("user", USER, "The user to run as."),
    Field("group", GROUP, "The group to run as."),
    Field("groups", ListOf(account("a group's name or id"), "a list of groups"), "Its supplementary groups."),
    Field("umask", UMASK, "The file mode creation mask."),
    Field("cwd", Forms("an absolute path or null", NOTHING, PATH), "The directory to start in."),
    Field("environment", ENVIRONMENT, "Variables on top of the guest's."),
    Field(
        "environment_file",
        ListOf(ENVIRONMENT_FILE, "a list of absolute paths", single=True),
        "Files of NAME=VALUE lines; a - in front: one that may be missing.",
    ),
    Field("limits", MapOf(Choice(RLIMITS), LIMIT, "a mapping of resources to limits", make_limit), "setrlimit(2)."),
    Field("nice", Forms("-20 to 19, or null", NOTHING, Number(-20, 19, "-20 to 19")), "Its nice value."),
    Field(
        "oom_score_adj",
        Forms("-1000 to 1000, or null", NOTHING, Number(-1000, 1000, "-1000 to 1000")),
        "How soon it is chosen when memory runs out.",
    ),
    Field(
        "capabilities",
        Forms("a list of capabilities, or null for the guest's", NOTHING, ListOf(CAPABILITY, "a list of capabilities")),
        "All that it has and may gain.",
    ),
    Field("no_new_privileges", Flag(), "No program that it executes gains privileges."),
    Field("private_tmp", Flag(), "A /tmp and a /var/tmp of its own."),
    Field("read_only_paths", ListOf(PATH, "a list of absolute paths", single=True), "What it cannot write to."),
    Field("cgroup", _CGROUP, "Limits of all its processes together."),
    Field("tty", Forms("a path below /dev, or null", NOTHING, DEVICE_PATH), "A terminal as its streams."),
    Field("log", _LOG, "Where what it prints goes."),
    finish=_make_part,
    refused=dict.fromkeys(("sockets", "timer"), "it comes with a later version; leave it out"),
    others=_other_words,
)


def read_inline(name: str, node: Node, path: str, reading: Reading) -> Any:
    """A service of the `services` mapping: its part, also of null; INVALID with the problems noted.

    What contradicts itself within the part is a problem of the file that it stands in; nothing goes over it.
    """
    if node.kind == NULL:
        return ServicePart(name=name, origin=reading.problems.name, place=(node.line, node.column), path=path)
    part = SERVICE.read(node, path, reading)
    if part is INVALID:
        return INVALID
    part = part.replace(name=name)
    mistakes = within(part)
    for problem in mistakes:
        reading.problems.add(problem.line, problem.column, problem.path, problem.what, problem.right)
    return INVALID if mistakes else part


def service_json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a service file."""
    schema = SERVICE.json()
    for key, value in schema["properties"].items():
        default = getattr(Service, key, None)
        if isinstance(default, str | int | float):
            value["default"] = f"{default:03o}" if key == "umask" else default
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "lcinit service, NAME.yml",
        **schema,
        "type": ["object", "null"],
    }

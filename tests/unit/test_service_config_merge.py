"""Parts of a service put together: later ones over earlier ones, and what one key demands of another."""

from __future__ import annotations

import pytest

from lcinit.config.service_checks import merge, within
from lcinit.config.service_files import parse_service
from lcinit.config.service_values import Service, ServiceLog, ServicePart

FORKING = "type: forking\npid_file: /run/x\n"
ONESHOT = "type: oneshot\n"
DELAYS = ("restart_delay", "restart_max_delay", "restart_jitter", "restart_reset")


def part(text: str, origin: str = "a") -> ServicePart:
    return parse_service(text.encode(), origin, "s")


def merged(*texts: str) -> tuple[Service, list[str]]:
    """The service of files called a, b, c, and what is wrong with it. A command comes before all of them."""
    parts = [part(text, origin) for text, origin in zip(texts, "abc", strict=False)]
    service, mistakes = merge("s", [part("command: x", "command"), *parts])
    return service, [mistake.text() for mistake in mistakes]


def mistakes(*texts: str) -> list[str]:
    return merged(*texts)[1]


def test_one_part_is_the_service():
    service, wrong = merge("s", [part("command: x -y\nuser: www\n")])
    assert (service, wrong) == (Service(name="s", origin="a", command=("x", "-y"), user="www"), ())


def test_later_parts_go_over_earlier_ones_key_by_key_and_lists_as_a_whole():
    service, wrong = merged(
        "requires: [a, b]\nuser: one\nlog: {to: file, max_files: 9}\nenvironment: {A: a, B: b}",
        "requires: c\nlog: both\nenvironment: {B: c}",
        "user: null",
    )
    assert wrong == []
    assert service == Service(
        name="s",
        origin="c",
        command=("x",),
        requires=("c",),
        user=None,
        log=ServiceLog(to="both"),
        environment=(("B", "c"),),
    )


def test_a_part_that_says_nothing_changes_nothing_and_yet_has_the_last_word():
    service, wrong = merged("user: one", "")
    assert (service.user, service.origin, wrong) == ("one", "b", [])


def test_without_a_command_there_is_no_service():
    _, (mistake,) = merge("s", [part("\nuser: www")])
    assert mistake.text() == "a:2:1: command: the key is missing; write the program and its arguments"
    inline = ServicePart(name="s", origin="init.yml", place=(4, 6), path="services.s")
    _, (mistake,) = merge("s", [inline])
    assert mistake.text() == (
        "init.yml:4:6: services.s.command: the key is missing; "
        "write the program and its arguments, or the name of a service that has a file"
    )
    _, (mistake,) = merge("s", [part("user: a"), inline])
    assert mistake.text().endswith("the key is missing; write the program and its arguments")


OUT = "or leave it out"
FITTING = [
    ("notify_fd: 5", "notify-fd"),
    ("notify_access: all", "notify"),
    ("pid_file: /run/x", "forking"),
    ("remain_after_exit: true", "oneshot"),
    ("remain_after_exit: false", "oneshot"),
    ("watchdog: 10s", "notify"),
    ("watchdog_signal: SIGUSR1", "notify"),
]
TYPES = ("simple", "notify", "notify-fd", "forking", "oneshot")


@pytest.mark.parametrize(("text", "fitting"), FITTING)
@pytest.mark.parametrize("type_", TYPES)
def test_some_keys_are_for_one_type_alone(text, fitting, type_):
    key = text.partition(":")[0]
    written = f"type: {type_}\n{text}\n" + ("pid_file: /x\n" if type_ == "forking" and key != "pid_file" else "")
    expected = [
        f"a:2:{len(key) + 3}: {key}: has no effect for type {type_}; write type: {fitting}, {OUT}",
    ]
    assert mistakes(written) == ([] if type_ == fitting else expected)


@pytest.mark.parametrize("text", [text for text, fitting in FITTING if fitting != "simple"])
def test_no_type_is_simple(text):
    assert "has no effect for type simple; " in mistakes(text)[0]


@pytest.mark.parametrize("text", ["pid_file: null", "watchdog: null"])
def test_what_asks_for_nothing_is_no_mistake(text):
    assert mistakes(text) == []


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "type: forking",
            "a:1:7: type: a forking service needs a pid_file; "
            "write pid_file, or have it stay in the foreground, as another type",
        ),
        (
            f"{ONESHOT}restart: always",
            "a:2:10: restart: a oneshot that always restarts never ends; write restart: on-failure, or another type",
        ),
        (f"{ONESHOT}health: {{tcp: 1}}", "a:2:9: health: has no effect for type oneshot; leave it out"),
        (f"{ONESHOT}reload: x", "a:2:9: reload: has no effect for type oneshot; leave it out"),
        (f"{ONESHOT}reload_signal: HUP", "a:2:16: reload_signal: has no effect for type oneshot; leave it out"),
        (
            f"{ONESHOT}stop: x\nremain_after_exit: no",
            "a:2:7: stop: has no effect without remain_after_exit: it is never up; write stop_post instead",
        ),
        (
            "restart: on-watchdog",
            "a:1:10: restart: it restarts on-watchdog, and there is no watchdog; "
            "write watchdog, or restart: on-failure",
        ),
        (
            "restart: on-watchdog\nhealth: {tcp: 1, action: none}",
            "a:1:10: restart: it restarts on-watchdog, and there is no watchdog; "
            "write watchdog, or restart: on-failure",
        ),
        *(
            (
                f"restart: no\n{key}: 1",
                f"a:2:{len(key) + 3}: {key}: has no effect with restart: no; write restart: on-failure, {OUT}",
            )
            for key in (*DELAYS, "restart_prevent_exit_status")
        ),
        (
            "restart_delay: 5\nrestart_max_delay: 4",
            "a:1:16: restart_delay: 5 s of restart_delay are more than 4 s of restart_max_delay; "
            "write restart_max_delay at least as long",
        ),
        *(
            (
                f"restart_delay: 0\n{key}: 1",
                f"a:2:{len(key) + 3}: {key}: has no effect with restart_delay: 0; leave it out",
            )
            for key in ("restart_max_delay", "restart_jitter")
        ),
        (
            "start_limit_burst: 0\nstart_limit_interval: 5",
            f"a:2:23: start_limit_interval: has no effect without a limit; write start_limit_burst, {OUT}",
        ),
        (
            "tty: /dev/tty1\nlog: file",
            "a:2:6: log: has no effect beside tty: all that it prints is on the terminal; leave one of them out",
        ),
        *(
            (f"{key}: [a, s]", f"a:1:{len(key) + 3}: {key}: names the service itself; leave it out")
            for key in ("requires", "wants", "start_after", "start_before")
        ),
        *(
            (
                f"{key}: [a, b]\nstart_before: [c, b]",
                f"a:2:15: start_before: b stands in {key}, too; keep one of them",
            )
            for key in ("requires", "wants", "start_after")
        ),
    ],
)
def test_keys_that_contradict_each_other(text, line):
    assert mistakes(text) == [line]


@pytest.mark.parametrize(
    "text",
    [
        FORKING,
        f"{ONESHOT}restart: on-failure",
        f"{ONESHOT}stop: x",
        f"{ONESHOT}stop: x\nremain_after_exit: yes",
        f"{ONESHOT}stop_post: x\nremain_after_exit: no",
        f"{ONESHOT}health: null\nreload: []\nreload_signal: null",
        "restart: on-watchdog\ntype: notify\nwatchdog: 5",
        "restart: on-watchdog\nhealth: {tcp: 1}",
        "restart: no\nhealth: {tcp: 1}\nrestart_delay: 1",
        "restart: no\nstart_limit_burst: 3",
        "restart_delay: 5\nrestart_max_delay: 5",
        "restart_delay: 0\nrestart_reset: 5",
        "start_limit_burst: null",
        "start_limit_interval: 5",
        "tty: /dev/tty1",
        "tty: /dev/tty1\nlog: file\nstart_pre: x",
        "tty: /dev/tty1\nlog: file\nhealth: {exec: x}",
        "tty: null\nlog: file",
        "groups: [audio]",
        "reload: x\nreload_signal: HUP",
        "requires: a\nwants: a\nstart_after: a\nstart_before: b",
    ],
)
def test_keys_that_go_together(text):
    assert mistakes(text) == []


@pytest.mark.parametrize(
    ("earlier", "later", "left"),
    [
        ("type: notify\nwatchdog: 5\nnotify_access: all", "type: simple", {}),
        ("type: notify-fd\nnotify_fd: 5", "type: notify", {"type": "notify"}),
        (FORKING, "type: simple", {}),
        (f"{ONESHOT}remain_after_exit: no", "type: simple", {}),
        ("health: {tcp: 1}\nreload: x\nreload_signal: HUP", "type: oneshot", {"type": "oneshot"}),
        (
            f"{ONESHOT}stop: x",
            "remain_after_exit: no",
            {"type": "oneshot", "remain_after_exit": False},
        ),
        ("restart_delay: 5\nrestart_prevent_exit_status: 3", "restart: no", {"restart": "no"}),
        ("restart_max_delay: 5\nrestart_jitter: 0.5", "restart_delay: 0", {"restart_delay": 0.0}),
        ("start_limit_interval: 5", "start_limit_burst: 0", {"start_limit_burst": None}),
        ("log: file", "tty: /dev/tty1", {"tty": "/dev/tty1"}),
    ],
)
def test_a_later_part_may_take_the_sense_from_an_earlier_key_which_is_then_gone(earlier, later, left):
    service, wrong = merged(earlier, later)
    assert wrong == []
    assert service == Service(name="s", origin="b", command=("x",), **left)


@pytest.mark.parametrize(
    ("earlier", "later"),
    [("type: simple", "watchdog: 5"), ("restart: no", "restart_delay: 5"), ("tty: /dev/x", "log: file")],
)
def test_a_later_part_must_not_say_what_an_earlier_one_has_made_void(earlier, later):
    (line,) = mistakes(earlier, later)
    assert line.startswith("b:1:") and "has no effect" in line
    assert f" ({earlier.partition(':')[0]} stands in a:1); " in line


@pytest.mark.parametrize(
    ("texts", "line"),
    [
        (
            ("restart: always", "user: x\ntype: oneshot"),
            "b:2:7: type: a oneshot that always restarts never ends (restart stands in a:1); ",
        ),
        (
            ("restart_max_delay: 5", "restart_delay: 6"),
            "b:1:16: restart_delay: 6 s of restart_delay are more than 5 s of restart_max_delay "
            "(restart_max_delay stands in a:1); ",
        ),
        (
            ("start_before: x", "", "\n\nwants: x"),
            "c:3:8: wants: x stands in wants, too (start_before stands in a:1); keep one of them",
        ),
        (
            ("type: notify\nwatchdog: 5\nrestart: on-watchdog", "type: simple"),
            "b:1:7: type: it restarts on-watchdog, and there is no watchdog (restart stands in a:3); ",
        ),
        (("type: forking\npid_file: /x", "pid_file: null"), "b:1:11: pid_file: a forking service needs a pid_file ("),
    ],
)
def test_a_mistake_between_files_is_told_of_the_last_one_and_names_the_other(texts, line):
    (found,) = mistakes(*texts)
    assert found.startswith(line)


def test_all_mistakes_come_at_once():
    assert len(mistakes("notify_fd: 5\nrestart: no\nrestart_delay: 1\nwants: s\n")) == 3


def test_what_is_wrong_within_a_part_is_known_without_the_others():
    assert [p.path for p in within(part("type: simple\nwatchdog: 5\nrestart: no\nrestart_delay: 5"))] == [
        "watchdog",
        "restart_delay",
    ]
    # another part may have the type, the limit, the command
    assert within(part("watchdog: 5\nrestart_delay: 2m")) == ()
    assert within(part("type: forking\nrestart: on-watchdog")) == ()


def test_a_part_made_by_hand_has_one_place():
    made = ServicePart(
        name="s", origin="a", given=(("command", ("x",)), ("notify_fd", 5)), place=(7, 3), path="services.s"
    )
    _, (mistake,) = merge("s", [made])
    assert mistake.text().startswith("a:7:3: services.s.notify_fd: has no effect for type simple; ")


def test_a_delay_or_a_cap_that_nobody_wrote_fits_the_one_that_is_written() -> None:
    for text, delay, most in (
        ("restart_delay: 2m", 120, 120),
        ("restart_delay: 1000", 1000, 1000),
        ("restart_max_delay: 100ms", 0.1, 0.1),
        ("restart_delay: 5", 5, 60),
        ("restart_max_delay: 5", 0.2, 5),
    ):
        service, mistakes = merge("a", [part(f"command: x\n{text}")])
        assert (mistakes, service.restart_delay, service.restart_max_delay) == ((), delay, most)

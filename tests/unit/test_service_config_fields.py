"""Every key of a service file: each form that is accepted with the value it gives, each refused with its message."""

from __future__ import annotations

import math

import pytest

from lcinit.config.compound import Fields
from lcinit.config.diagnostics import InvalidFile
from lcinit.config.service_files import parse_service
from lcinit.config.service_schema import SERVICE
from lcinit.config.service_values import CgroupLimits, Health, Service, ServiceLog, ServicePart
from lcinit.config.shapes import Forms
from lcinit.config.values import Command, Limit
from lcinit.linux.capabilities import CAPABILITIES

TRUE = Command(argv=("true",))


def read(text: str) -> ServicePart:
    return parse_service(text.encode(), "f", "s")


def problem(text: str) -> str:
    """The problems of a file, without its name."""
    with pytest.raises(InvalidFile) as caught:
        read(text)
    return "\n".join(line.removeprefix("f:") for line in str(caught.value).splitlines())


COMMANDS = [
    ("/bin/true", (Command(argv=("/bin/true",)),)),
    ("sh -c 'a b'", (Command(argv=("sh", "-c", "a b")),)),
    ("[[echo, hello], true 2]", (Command(argv=("echo", "hello")), Command(argv=("true", "2")))),
    (
        "{command: a b, input: x, environment: {A: b}, cwd: /c, user: d, group: 5, timeout: 1m, ignore_errors: yes}",
        (
            Command(
                argv=("a", "b"),
                input="x",
                environment=(("A", "b"),),
                cwd="/c",
                user="d",
                group=5,
                timeout=60.0,
                ignore_errors=True,
            ),
        ),
    ),
    ("[]", ()),
]
NAMES = [("a", ("a",)), ("[a, b.c-d@e_1]", ("a", "b.c-d@e_1")), ("[]", ())]
PAUSES = [("0", 0.0), ("0.0", 0.0), ("1.5", 1.5), ("500ms", 0.5), ("2m", 120.0)]
TIMES = [("5", 5.0), ("1m30s", 90.0), ("null", None)]
STATUSES = [
    ("7", (7,)),
    ("SIGUSR1", ("SIGUSR1",)),
    ("[0, 255, usr1, SIGRTMIN+3]", (0, 255, "SIGUSR1", "SIGRTMIN+3")),
    ("[]", ()),
]
FLAGS = [("true", True), ("no", False)]

ACCEPTED = [
    *(("description", text, value) for text, value in [("A server", "A server"), ('""', ""), ("é" * 200, "é" * 200)]),
    *(
        ("command", text, value)
        for text, value in [
            ("/bin/x -a 'b c'", ("/bin/x", "-a", "b c")),
            ('[/bin/x, "1"]', ("/bin/x", "1")),
            ("x # c", ("x",)),
        ]
    ),
    *(("type", word, word) for word in ("simple", "notify", "notify-fd", "forking", "oneshot")),
    *(("notify_fd", str(number), number) for number in (3, 255)),
    *(("notify_access", word, word) for word in ("main", "all")),
    ("pid_file", "/run//x.pid", "/run/x.pid"),
    ("pid_file", "null", None),
    *(("remain_after_exit", text, value) for text, value in FLAGS),
    *((key, text, value) for key in ("requires", "wants", "start_after", "start_before") for text, value in NAMES),
    *(
        ("runlevels", text, value)
        for text, value in [
            ("3", ("3",)),
            ("S", ("S",)),
            ("s", ("S",)),
            ('"S"', ("S",)),
            ("[1, 2, 3, 4, 5, S]", ("1", "2", "3", "4", "5", "S")),
        ]
    ),
    *(
        (key, text, value)
        for key in ("start_pre", "start_post", "stop", "stop_post", "reload")
        for text, value in COMMANDS
    ),
    *(("reload_signal", text, value) for text, value in [("HUP", "SIGHUP"), ("SIGUSR2", "SIGUSR2"), ("null", None)]),
    *((key, text, value) for key in ("start_timeout", "stop_timeout", "watchdog") for text, value in TIMES),
    *(
        (key, text, value)
        for key in ("stop_signal", "watchdog_signal")
        for text, value in [("int", "SIGINT"), ("SIGRTMIN+4", "SIGRTMIN+4")]
    ),
    *(("kill_mode", word, word) for word in ("mixed", "control-group", "process")),
    *(("restart", word, word) for word in ("on-failure", "always", "on-watchdog")),
    *(("restart", text, "no") for text in ("no", '"no"', "No", "false", "off")),
    *((key, text, value) for key in ("restart_delay", "restart_max_delay", "restart_reset") for text, value in PAUSES),
    *(("restart_jitter", text, value) for text, value in [("0", 0.0), ("0.25", 0.25), ("1", 1.0)]),
    *(("start_limit_burst", text, value) for text, value in [("5", 5), ("0", None), ("null", None), ("10000", 10000)]),
    *(("start_limit_interval", text, value) for text, value in [("5", 5.0), ("10m", 600.0)]),
    *((key, *each) for key in ("success_exit_status", "restart_prevent_exit_status") for each in STATUSES),
    *(("essential", text, value) for text, value in FLAGS),
    *(
        ("health", text, value)
        for text, value in [
            ("null", None),
            ("{exec: 'true'}", Health(exec=TRUE)),
            ("{exec: [a, b]}", Health(exec=Command(argv=("a", "b")))),
            (
                "{exec: {command: a, environment: {A: b}, cwd: /c, user: d, group: e}}",
                Health(exec=Command(argv=("a",), environment=(("A", "b"),), cwd="/c", user="d", group="e")),
            ),
            ("{tcp: 8080}", Health(tcp=("127.0.0.1", 8080))),
            ("{tcp: 10.0.0.1:80}", Health(tcp=("10.0.0.1", 80))),
            ("{tcp: 'localhost:65535'}", Health(tcp=("127.0.0.1", 65535))),
            ("{tcp: '[::1]:1'}", Health(tcp=("::1", 1))),
            ("{http: 'http://127.0.0.1'}", Health(http="http://127.0.0.1")),
            ("{http: 'http://localhost:8080/a?b=c'}", Health(http="http://127.0.0.1:8080/a?b=c")),
            ("{http: 'http://[::1]/'}", Health(http="http://[::1]/")),
            ("{http: 'http://[::1]:08080?x'}", Health(http="http://[::1]:8080?x")),
            ("{tcp: 1, start_period: 0}", Health(tcp=("127.0.0.1", 1), start_period=0.0)),
            ("{tcp: 1, start_period: 1m}", Health(tcp=("127.0.0.1", 1), start_period=60.0)),
            ("{tcp: 1, interval: 500ms}", Health(tcp=("127.0.0.1", 1), interval=0.5)),
            ("{tcp: 1, timeout: 2}", Health(tcp=("127.0.0.1", 1), timeout=2.0)),
            ("{tcp: 1, failures: 1}", Health(tcp=("127.0.0.1", 1), failures=1)),
            ("{tcp: 1, action: stop}", Health(tcp=("127.0.0.1", 1), action="stop")),
            ("{tcp: 1, action: none}", Health(tcp=("127.0.0.1", 1), action="none")),
            ("{tcp: 1, action: restart}", Health(tcp=("127.0.0.1", 1))),
        ]
    ),
    *((key, text, value) for key in ("user", "group") for text, value in [("www", "www"), ("33", 33), ("null", None)]),
    *(("groups", text, value) for text, value in [("[audio, 44]", ("audio", 44)), ("[]", ())]),
    *(("umask", text, value) for text, value in [('"022"', 0o22), ('"0077"', 0o77), ('"000"', 0), ('"777"', 0o777)]),
    *(("cwd", text, value) for text, value in [("/a//b/", "/a/b"), ("null", None)]),
    *(("environment", text, value) for text, value in [("{A: b, C: ''}", (("A", "b"), ("C", ""))), ("{}", ())]),
    *(
        ("environment_file", text, value)
        for text, value in [
            ("/etc/x", ("/etc/x",)),
            ("-/etc//x", ("-/etc/x",)),
            ("[/a, -/b]", ("/a", "-/b")),
            ("[]", ()),
        ]
    ),
    (
        "limits",
        "{nofile: 1024, nproc: infinity, core: '0:5', stack: {soft: 1, hard: 2}}",
        (
            Limit(name="nofile", soft=1024, hard=1024),
            Limit(name="nproc", soft=None, hard=None),
            Limit(name="core", soft=0, hard=5),
            Limit(name="stack", soft=1, hard=2),
        ),
    ),
    *(("nice", text, value) for text, value in [("-20", -20), ("19", 19), ("null", None)]),
    *(("oom_score_adj", text, value) for text, value in [("-1000", -1000), ("1000", 1000), ("null", None)]),
    *(
        ("capabilities", text, value)
        for text, value in [
            ("null", None),
            ("[]", ()),
            ("[CAP_NET_RAW, chown]", ("net_raw", "chown")),
            (f"[{', '.join(CAPABILITIES)}]", tuple(CAPABILITIES)),
        ]
    ),
    *((key, *each) for key in ("no_new_privileges", "private_tmp") for each in FLAGS),
    *(("read_only_paths", text, value) for text, value in [("/", ("/",)), ("[/a/, /b]", ("/a", "/b")), ("[]", ())]),
    *(
        ("cgroup", text, value)
        for text, value in [
            ("{}", CgroupLimits()),
            ("{memory_max: 512M}", CgroupLimits(memory_max=512 << 20)),
            ("{memory_max: 4096}", CgroupLimits(memory_max=4096)),
            ("{memory_max: null}", CgroupLimits()),
            ("{memory_high: 16k}", CgroupLimits(memory_high=16 << 10)),
            ("{memory_high: 2G, memory_max: 2G}", CgroupLimits(memory_high=2 << 30, memory_max=2 << 30)),
            ("{memory_max: 1t}", CgroupLimits(memory_max=1 << 40)),
            ("{cpu_max: 150%}", CgroupLimits(cpu_max=150)),
            ("{cpu_max: '1%'}", CgroupLimits(cpu_max=1)),
            ("{cpu_max: null}", CgroupLimits()),
            ("{cpu_weight: 1}", CgroupLimits(cpu_weight=1)),
            ("{cpu_weight: 10000}", CgroupLimits(cpu_weight=10000)),
            ("{pids_max: 100}", CgroupLimits(pids_max=100)),
            ("{pids_max: 2147483647}", CgroupLimits(pids_max=2**31 - 1)),
            ("{memory_max: 4194304T}", CgroupLimits(memory_max=2**62)),
            ("{pids_max: null}", CgroupLimits()),
        ]
    ),
    *(("tty", text, value) for text, value in [("/dev/console", "/dev/console"), ("/dev//pts/0", "/dev/pts/0")]),
    ("tty", "null", None),
    *(("log", word, ServiceLog(to=word)) for word in ("console", "file", "both", "none")),
    *(
        ("log", text, value)
        for text, value in [
            ("{}", ServiceLog()),
            ("{to: file}", ServiceLog(to="file")),
            ("{format: json}", ServiceLog(format="json")),
            ("{to: both, format: text}", ServiceLog(to="both")),
            ("{to: file, max_size: 1M}", ServiceLog(to="file", max_size=1 << 20)),
            ("{to: file, max_age: 1d}", ServiceLog(to="file", max_age=86400.0)),
            ("{to: file, max_age: null}", ServiceLog(to="file")),
            ("{to: both, max_files: 0}", ServiceLog(to="both", max_files=0)),
            ("{rate_limit_burst: 100}", ServiceLog(rate_limit_burst=100)),
            ("{rate_limit_burst: null}", ServiceLog()),
            (
                "{rate_limit_burst: 100, rate_limit_interval: 1s}",
                ServiceLog(rate_limit_burst=100, rate_limit_interval=1.0),
            ),
            (
                "{to: console, format: text, max_size: 16777216, max_age: null, max_files: 4, rate_limit_interval: 30}",
                ServiceLog(),
            ),
        ]
    ),
]
"""Key, text, and the value that this gives."""


@pytest.mark.parametrize(("key", "text", "value"), ACCEPTED)
def test_what_is_accepted_and_what_it_means(key, text, value):
    part = read(f"{key}: {text}")
    assert part.given == ((key, value),)
    assert type(part.given[0][1]) is type(value)


def inner(key: str) -> Fields | None:
    """The mapping of keys that a key may have."""
    shape = SERVICE.fields[key].shape
    forms = shape.forms if isinstance(shape, Forms) else (shape,)
    return next((form for form in forms if isinstance(form, Fields)), None)


def test_every_key_is_accepted_above_with_a_value_other_than_its_default():
    assert {key for key, _, value in ACCEPTED if value != getattr(Service, key)} == SERVICE.fields.keys()
    for key in ("health", "cgroup", "log"):
        fields = inner(key)
        assert fields is not None
        changed = {
            name
            for accepted, _, value in ACCEPTED
            if accepted == key and value is not None
            for name in fields.fields
            if getattr(value, name) != getattr(fields.record, name)
        }
        assert changed == fields.fields.keys()


def test_the_keys_are_the_fields_of_a_service():
    assert set(SERVICE.fields) == set(Service._fields) - {"name", "origin"}
    for key, record in (("health", Health), ("cgroup", CgroupLimits), ("log", ServiceLog)):
        fields = inner(key)
        assert fields is not None
        assert tuple(fields.fields) == record._fields


COMMAND = "write a command: text, a list of words, or {command,"
DURATION = "write seconds above 0 as a number, or 1m30s, 500ms, 2h; a week at most"
NO_NAME = (
    '"example.org" is no IP address; write an IP address or localhost: '
    "PID 1 looks no names up, for that would load the guest's code"
)
NO_URL = "does not fit; write http://ADDRESS[:PORT]/PATH in ASCII, without user and #"
OCTAL = '022 is octal in YAML 1.1 and decimal in YAML 1.2; write 18 if octal was meant, 22 if decimal, or "022"'

REFUSED = [
    ("description", "1", 'is the number 1; write one line of at most 200 characters ("1", with the quotes, is text)'),
    ("description", '"a\\nb"', "holds a line break or another character that cannot be shown; write one line"),
    ("description", '"\\e[31m"', "holds a line break or another character that cannot be shown; write one line"),
    ("description", '"\\u202e"', "holds a line break or another character that cannot be shown; write one line"),
    ("description", "x" * 201, "has 201 characters; write one line of at most 200 characters"),
    ("command", '""', "is empty; write a command"),
    ("command", "[]", "is an empty list; write a list of words"),
    ("command", "'\"x'", 'cannot be split into words: the quotation that " begins is not closed; close it'),
    ("command", '["", x]', "names no program; write a program and its arguments"),
    ("command", "[x, 1]", 'is the number 1; write a word ("1", with the quotes, is text)'),
    ("command", "null", "is null; write a command: text, or a list of words"),
    ("command", "{command: x}", "is a mapping; write a command: text, or a list of words"),
    ("type", "notify_fd", '"notify_fd" is not known; did you mean notify-fd?'),
    ("type", "dbus", '"dbus" is not known; write simple, notify, notify-fd, forking or oneshot'),
    ("type", "1", "is the number 1; write simple, notify, notify-fd, forking or oneshot"),
    ("notify_fd", "2", "2 is out of range; write a descriptor from 3 to 255"),
    ("notify_fd", "256", "256 is out of range; write a descriptor from 3 to 255"),
    ("notify_fd", '"5"', 'is the text "5"; write 5 without quotes'),
    ("notify_access", "exec", '"exec" is not known; write main or all'),
    ("pid_file", "run/x.pid", '"run/x.pid" is a relative path; write an absolute path'),
    ("pid_file", "/run/../x", "holds ..; write the path without .."),
    ("remain_after_exit", "1", "is the number 1; write true or false"),
    *(
        (key, text, words)
        for key in ("requires", "wants", "start_after", "start_before")
        for text, words in [
            ("a b", '"a b" does not fit; write a service\'s name: letters, digits, _ . @ -'),
            ("-a", '"-a" does not fit; write a service\'s name: letters, digits, _ . @ -'),
            (f"a{'b' * 64}", "does not fit; write a service's name: letters, digits, _ . @ -"),
            ('"a\\n"', "does not fit; write a service's name"),
            ("a/b", '"a/b" does not fit; write a service\'s name'),
            ("lcinit", '"lcinit" is lcinit\'s own name; choose another one'),
            ("exec.command", '"exec.command" is lcinit\'s own name; choose another one'),
            ("1", 'is the number 1; write a list of services\' names ("1", with the quotes, is text)'),
            ("{a: b}", "is a mapping; write a list of services' names"),
        ]
    ),
    ("runlevels", "[]", "is an empty list; write a list of runlevels: 1 to 5, or S"),
    ("runlevels", "2345", '"2345" is no runlevel; write [2, 3, 4, 5]'),
    ("runlevels", '"2345"', '"2345" is no runlevel; write [2, 3, 4, 5]'),
    ("runlevels", "S23", '"S23" is no runlevel; write [S, 2, 3]'),
    ("runlevels", "12345s", '"12345s" is no runlevel; write [1, 2, 3, 4, 5, S]'),
    ("runlevels", '"3"', '"3" is no runlevel; write 3 without quotes'),
    ("runlevels", "0", '"0" is no runlevel; 0 and 6 are the way down, on which nothing starts; leave it out'),
    ("runlevels", '"6"', '"6" is no runlevel; 0 and 6 are the way down, on which nothing starts; leave it out'),
    ("runlevels", "7", '"7" is no runlevel; write a runlevel: 1 to 5, or S'),
    ("runlevels", "default", '"default" is no runlevel; write a runlevel: 1 to 5, or S'),
    ("runlevels", "1.0", "is the number 1.0; write a list of runlevels: 1 to 5, or S"),
    ("runlevels", "[[3]]", "is a list; write a runlevel: 1 to 5, or S"),
    *(
        (key, text, words)
        for key in ("start_pre", "start_post", "stop", "stop_post", "reload")
        for text, words in [
            ("null", "is null; write a list of commands"),
            ("[1]", f"is the number 1; {COMMAND}"),
            ("{command: x, comand: y}", 'the key "comand" is unknown; did you mean command?'),
            ("{input: x}", "the key command is missing"),
            ("{command: x, timeout: 0}", f"0 is out of range; {DURATION}"),
        ]
    ),
    ("reload_signal", "SIGFOO", '"SIGFOO" is no signal; write a name such as SIGTERM or SIGRTMIN+4'),
    ("reload_signal", "1", "is the number 1; write a signal's name or null"),
    *(
        (key, text, words)
        for key in ("stop_signal", "watchdog_signal")
        for text, words in [
            ("15", "is the number 15; write a signal's name"),
            ("null", "is null; write a signal's name"),
            ("[SIGABRT]", "is a list; write a signal's name"),
        ]
    ),
    ("watchdog_signal", "SIGFOO", '"SIGFOO" is no signal; write a name such as SIGTERM or SIGRTMIN+4'),
    *(
        (key, text, words)
        for key in ("start_timeout", "stop_timeout", "watchdog")
        for text, words in [
            ("0", f"0 is out of range; {DURATION}"),
            ("-1", f"-1 is out of range; {DURATION}"),
            ("1.5m", f'"1.5m" does not fit; {DURATION}'),
            ("604801", f"604801 is out of range; {DURATION}"),
            ("true", "is the boolean true; write a duration"),
        ]
    ),
    ("kill_mode", "none", '"none" is not known; write mixed, control-group or process'),
    ("restart", "yes", "is the boolean yes; write no, on-failure, always or on-watchdog"),
    ("restart", "on-abnormal", '"on-abnormal" is not known; write no, on-failure, always or on-watchdog'),
    ("restart", "on_failure", '"on_failure" is not known; did you mean on-failure?'),
    ("restart", "null", "is null; write no, on-failure, always or on-watchdog"),
    *(
        (key, text, words)
        for key in ("restart_delay", "restart_max_delay", "restart_reset")
        for text, words in [
            ("-1", f"-1 is out of range; {DURATION}"),
            ("null", "is null; write a duration, or 0"),
            ("0s", f'"0s" is out of range; {DURATION}'),
        ]
    ),
    ("restart_jitter", "1.5", "1.5 is out of range; write a share from 0 to 1"),
    ("restart_jitter", "-0.1", "-0.1 is out of range; write a share from 0 to 1"),
    ("restart_jitter", "10%", 'is the text "10%"; write a share from 0 to 1'),
    ("start_limit_burst", "-1", "-1 is out of range; write a count, or 0 for no limit"),
    ("start_limit_burst", "10001", "10001 is out of range; write a count, or 0 for no limit"),
    ("start_limit_burst", "many", 'is the text "many"; write a count, or 0 or null for no limit'),
    ("start_limit_interval", "0", f"0 is out of range; {DURATION}"),
    ("start_limit_interval", "null", f"is null; {DURATION}"),
    *(
        (key, text, words)
        for key in ("success_exit_status", "restart_prevent_exit_status")
        for text, words in [
            ("256", "256 is out of range; write an exit code from 0 to 255"),
            ("-1", "-1 is out of range; write an exit code from 0 to 255"),
            ("[SIGFOO]", '"SIGFOO" is no signal; write a name such as SIGTERM'),
            ('"7"', '"7" does not fit; write a signal\'s name'),
            ("[null]", "is null; write an exit code or a signal's name"),
        ]
    ),
    ("essential", "always", 'is the text "always"; write true or false'),
    ("health", "x", 'is the text "x"; write {exec | tcp | http, start_period'),
    ("health", "{}", "says nothing to check; write one of exec, tcp and http"),
    ("health", "{interval: 1}", "says nothing to check; write one of exec, tcp and http"),
    ("health", "{tcp: 1, http: 'http://127.0.0.1'}", "holds tcp and http; write one of exec, tcp and http"),
    ("health", "{exec: {command: x, timeout: 1}}", "timeout is not possible here; write it beside exec"),
    ("health", "{exec: {command: x, input: y}}", "input is not possible here; a check reads nothing; leave it out"),
    ("health", "{exec: {command: x, ignore_errors: no}}", "ignore_errors is not possible here; its failure is what"),
    ("health", "{tcp: 0}", "0 is out of range; write a port from 1 to 65535"),
    ("health", "{tcp: 65536}", "65536 is out of range; write a port from 1 to 65535"),
    ("health", "{tcp: '80'}", '"80" does not fit; write a port, ADDRESS:PORT or [ADDRESS]:PORT'),
    ("health", "{tcp: '127.0.0.1:0'}", '"0" is no port; write a port from 1 to 65535'),
    ("health", "{tcp: '127.0.0.1:65536'}", '"65536" is no port; write a port from 1 to 65535'),
    ("health", "{tcp: 'example.org:80'}", NO_NAME),
    ("health", "{tcp: '127.1:80'}", '"127.1" is no IP address; write an IP address or localhost'),
    ("health", "{tcp: '::1:80'}", '"::1" does not fit; write a port, ADDRESS:PORT or [ADDRESS]:PORT; brackets belong'),
    ("health", "{tcp: '[127.0.0.1]:80'}", '"[127.0.0.1]" does not fit; write a port, ADDRESS:PORT or [ADDRESS]:PORT'),
    ("health", "{tcp: '[fe80::1%eth0]:80'}", '"[fe80::1%eth0]" is no IP address; write an IP address or localhost'),
    ("health", "{tcp: ':80'}", '":80" does not fit; write a port, ADDRESS:PORT or [ADDRESS]:PORT'),
    ("health", "{http: 'https://127.0.0.1'}", '"https://127.0.0.1" is no http:// URL; write http://ADDRESS[:PORT]/PATH'),
    ("health", "{http: '127.0.0.1/x'}", '"127.0.0.1/x" is no http:// URL; write http://ADDRESS[:PORT]/PATH; TLS is'),
    ("health", "{http: 'http://example.org/'}", NO_NAME),
    ("health", "{http: 'http:///x'}", '"" is no IP address; write an IP address'),
    ("health", "{http: 'http://127.0.0.1:x/'}", '"x" is no port; write a port from 1 to 65535'),
    ("health", "{http: 'http://127.0.0.1:/'}", '"" is no port; write a port from 1 to 65535'),
    ("health", "{http: 'http://127.0.0.1:0/'}", '"0" is no port; write a port from 1 to 65535'),
    ("health", "{http: 'http://127.0.0.1:655360/'}", '"655360" is no port; write a port from 1 to 65535'),
    ("health", "{http: 'http://[::1'}", '"[:" is no IP address; write an IP address'),
    ("health", "{http: 'http://a:b@127.0.0.1/'}", NO_URL),
    ("health", "{http: 'http://127.0.0.1/#x'}", NO_URL),
    ("health", "{http: 'http://127.0.0.1/é'}", NO_URL),
    ("health", '{http: "http://127.0.0.1/\\r\\nX: y"}', NO_URL),
    ("health", "{http: 80}", 'is the number 80; write http://ADDRESS[:PORT]/PATH ("80", with the quotes, is text)'),
    ("health", "{tcp: 1, start_period: -1}", f"-1 is out of range; {DURATION}"),
    ("health", "{tcp: 1, interval: 0}", f"0 is out of range; {DURATION}"),
    ("health", "{tcp: 1, timeout: null}", f"is null; {DURATION}"),
    ("health", "{tcp: 1, failures: 0}", "0 is out of range; write a count from 1 to 1000"),
    ("health", "{tcp: 1, failures: 1001}", "1001 is out of range; write a count from 1 to 1000"),
    ("health", "{tcp: 1, action: kill}", '"kill" is not known; write restart, stop or none'),
    ("health", "{tcp: 1, retries: 3}", 'the key "retries" is unknown; the keys here are exec, tcp, http'),
    *(
        (key, text, words)
        for key in ("user", "group")
        for text, words in [
            ('"33"', '"33" does not fit; write a'),
            ("a:b", '"a:b" does not fit; write a'),
            ("-1", "-1 is out of range; write a"),
            ("4294967295", "4294967295 is out of range; write a"),
        ]
    ),
    ("groups", "audio", 'is the text "audio"; write a list of groups'),
    ("groups", '["44"]', '"44" does not fit; write a group\'s name or id, an id without quotes'),
    ("umask", "22", 'is the number 22; write "022", with the quotes'),
    ("umask", "0", 'is the number 0; write "000", with the quotes'),
    ("umask", "022", OCTAL),
    ("umask", '"22"', '"22" does not fit; write three octal digits in quotes, such as "022"'),
    ("umask", '"1022"', '"1022" does not fit; write three octal digits in quotes, such as "022"'),
    ("umask", '"088"', '"088" does not fit; write three octal digits in quotes, such as "022"'),
    ("umask", "null", 'is null; write three octal digits in quotes, such as "022"'),
    ("cwd", "srv", '"srv" is a relative path; write an absolute path'),
    ("environment", "{A: 1}", 'is the number 1; write text ("1", with the quotes, is text)'),
    ("environment", "{1A: b}", '"1A" does not fit; write a name of letters, digits and _'),
    ("environment", "[A=b]", "is a list; write a mapping of variables to text"),
    ("environment_file", "etc/x", '"etc/x" is a relative path; write an absolute path'),
    ("environment_file", '"-"', '"" is a relative path; write an absolute path'),
    ("environment_file", "--/x", '"-/x" is a relative path; write an absolute path'),
    ("environment_file", "/a/../b", "holds ..; write the path without .."),
    ("limits", "{nofile: '5:4'}", "the soft limit 5 is above the hard limit 4; write soft at most hard"),
    ("limits", "{nofiles: 5}", '"nofiles" is not known; did you mean nofile?'),
    ("nice", "-21", "-21 is out of range; write -20 to 19"),
    ("nice", "20", "20 is out of range; write -20 to 19"),
    ("oom_score_adj", "-1001", "-1001 is out of range; write -1000 to 1000"),
    ("oom_score_adj", "1001", "1001 is out of range; write -1000 to 1000"),
    ("capabilities", "[net_rwa]", '"net_rwa" is no capability; did you mean net_raw?'),
    ("capabilities", "net_raw", 'is the text "net_raw"; write a list of capabilities, or null for the guest\'s'),
    ("no_new_privileges", "1", "is the number 1; write true or false"),
    ("private_tmp", "disconnected", 'is the text "disconnected"; write true or false'),
    ("read_only_paths", "usr", '"usr" is a relative path; write an absolute path'),
    ("read_only_paths", "null", "is null; write a list of absolute paths"),
    ("cgroup", "null", "is null; write {memory_max, memory_high, cpu_max, cpu_weight, pids_max}"),
    ("cgroup", "{memory_max: 0}", "0 is out of range; write bytes, or a number with K, M, G or T (of 1024)"),
    ("cgroup", "{memory_max: 0M}", '"0M" is out of range; write bytes, or a number with K, M, G or T (of 1024)'),
    ("cgroup", "{memory_max: '512'}", '"512" does not fit; write bytes, or a number with K, M, G or T (of 1024)'),
    ("cgroup", "{memory_max: 1.5G}", '"1.5G" does not fit; write bytes, or a number with K, M, G or T (of 1024)'),
    ("cgroup", "{memory_max: 512MB}", '"512MB" does not fit; write bytes, or a number with K, M, G or T (of 1024)'),
    ("cgroup", "{memory_max: 9999999999T}", '"9999999999T" is out of range; write bytes'),
    ("cgroup", "{memory_max: 50%}", '"50%" does not fit; write bytes, or a number with K, M, G or T (of 1024)'),
    ("cgroup", "{memory_high: 2M, memory_max: 1M}", "is above memory_max, and has no effect; write less"),
    ("cgroup", "{cpu_max: 150}", 'is the number 150; write "150%", with the quotes'),
    ("cgroup", "{cpu_max: 0%}", '"0%" is out of range; write 1% to 100000%'),
    ("cgroup", "{cpu_max: 100001%}", '"100001%" is out of range; write 1% to 100000%'),
    ("cgroup", "{cpu_max: 1.5}", 'is the number 1.5; write a percentage or null ("1.5", with the quotes, is text)'),
    ("cgroup", "{cpu_max: half}", '"half" does not fit; write a percentage such as "150%"'),
    ("cgroup", "{cpu_weight: 0}", "0 is out of range; write 1 to 10000"),
    ("cgroup", "{cpu_weight: 10001}", "10001 is out of range; write 1 to 10000"),
    ("cgroup", "{pids_max: 0}", "0 is out of range; write a count above 0"),
    ("cgroup", "{pids_max: 2147483648}", "2147483648 is out of range; write a count above 0"),
    ("cgroup", "{memory_max: 4194305T}", '"4194305T" is out of range; write bytes'),
    ("cgroup", "{io_weight: 1}", 'the key "io_weight" is unknown; did you mean cpu_weight?'),
    ("tty", "/etc/passwd", '"/etc/passwd" is not below /dev; write a terminal such as "/dev/console"'),
    ("tty", "console", '"console" is a relative path; write an absolute path'),
    ("tty", "/dev", '"/dev" is not below /dev; write a terminal'),
    ("tty", "/dev/../etc/x", "holds ..; write the path without .."),
    ("log", "files", '"files" is not known; did you mean file? write console, file, both, none, or {to, format, …}'),
    ("log", "null", "is null; write console, file, both, none, or {to, format, …}"),
    ("log", "{to: syslog}", '"syslog" is not known; write console, file, both or none'),
    ("log", "{format: xml}", '"xml" is not known; write text or json'),
    ("log", "{to: file, max_size: 0}", "0 is out of range; write bytes"),
    ("log", "{to: file, max_age: 0}", f"0 is out of range; {DURATION}"),
    ("log", "{to: file, max_files: -1}", "-1 is out of range; write a count from 0 to 1000"),
    ("log", "{to: file, max_files: 1001}", "1001 is out of range; write a count from 0 to 1000"),
    ("log", "{rate_limit_burst: 0}", "0 is out of range; write a count above 0"),
    ("log", "{rate_limit_burst: 1, rate_limit_interval: 0}", f"0 is out of range; {DURATION}"),
    ("log", "{to: file, format: json}", "has no effect with to: file; write to: console, or leave it out"),
    ("log", "{to: none, format: json}", "has no effect with to: none; write to: console, or leave it out"),
    ("log", "{max_size: 1M}", "has no effect with to: console; write to: file, or leave it out"),
    ("log", "{max_age: 1d}", "has no effect with to: console; write to: file, or leave it out"),
    ("log", "{to: none, max_files: 1}", "has no effect with to: none; write to: file, or leave it out"),
    ("log", "{to: none, rate_limit_burst: 1}", "has no effect with to: none; write to: console, or leave it out"),
    ("log", "{rate_limit_interval: 5}", "has no effect without rate_limit_burst; write that, too, or leave it out"),
]  # fmt: skip
"""Key, text, and the words that say why not."""


@pytest.mark.parametrize(("key", "text", "words"), REFUSED)
def test_what_is_refused_says_why_and_what_to_write(key, text, words):
    (line,) = problem(f"description: x\n{key}: {text}\n" if key != "description" else f"\n{key}: {text}\n").splitlines()
    place, _, rest = line.partition(": ")
    row, column = place.split(":")
    assert (row, int(column) > len(key) + 1) == ("2", True)
    path, _, message = rest.partition(": ")
    assert path == key or path.startswith((f"{key}.", f"{key}["))
    assert message.startswith(words) or words in message


def test_every_key_is_refused_above_in_some_form():
    assert {key for key, _, _ in REFUSED} == SERVICE.fields.keys()


@pytest.mark.parametrize("key", ["sockets", "timer"])
def test_what_comes_later_is_refused_by_name(key):
    assert (
        problem(f"{key}: []") == f"1:1: {key}: {key} is not possible here; it comes with a later version; leave it out"
    )


@pytest.mark.parametrize(
    ("written", "meant"),
    [("comand", "command"), ("restart-delay", "restart_delay"), ("stop_signl", "stop_signal"), ("user_", "user")],
)
def test_a_key_that_is_nearly_right_is_recognised(written, meant):
    assert problem(f"{written}: x") == f'1:1: {written}: the key "{written}" is unknown; did you mean {meant}?'


def test_an_unknown_key_is_told_the_known_ones():
    assert "; the keys here are description, command, type, notify_fd, " in problem("zzz: x")


@pytest.mark.parametrize("text", ["", "# nothing\n", "null", "---\n..."])
def test_an_empty_file_says_nothing(text):
    assert read(text) == ServicePart(name="s", origin="f")


@pytest.mark.parametrize(("text", "what"), [("[]", "is a list"), ("x", 'is the text "x"'), ("1", "is the number 1")])
def test_a_file_is_a_mapping(text, what):
    assert problem(text) == f"1:1: (document): {what}; write the keys of a service"


def test_all_problems_come_at_once_in_their_order():
    assert problem("restart: maybe\nnice: 50\nhealth: {tcp: 0, http: x}\nenvironment: {A: 1}\n").split("\n") == [
        '1:10: restart: "maybe" is not known; write no, on-failure, always or on-watchdog',
        "2:7: nice: 50 is out of range; write -20 to 19",
        "3:15: health.tcp: 0 is out of range; write a port from 1 to 65535",
        '3:24: health.http: "x" is no http:// URL; write http://ADDRESS[:PORT]/PATH; TLS is not spoken',
        '4:18: environment.A: is the number 1; write text ("1", with the quotes, is text)',
    ]


def test_a_part_knows_where_each_key_stands():
    part = read("\ncommand: x\nlog:\n  to: file\n")
    assert part.places == ((2, 10), (4, 3))
    assert (part.place, part.path, part.name, part.origin) == ((2, 1), "", "s", "f")


def test_numbers_are_what_they_are_meant_to_be():
    given = dict(read("restart_delay: 1\nstart_timeout: 1\nrestart_jitter: 0\nhealth: {tcp: 1, interval: 2}").given)
    assert [type(given[key]) for key in ("restart_delay", "start_timeout", "restart_jitter")] == [float] * 3
    assert math.isclose(given["health"].interval, 2) and isinstance(given["health"].interval, float)

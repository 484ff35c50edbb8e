"""The varlink protocol on bytes: framing, bounds, what is a call and what is not, and what a reply may be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcinit.control import varlink
from lcinit.control.varlink import BrokenMessage, Call, Framer, MethodError, Reply, Taker


def _messages(framer: Framer) -> list[bytes]:
    return list(iter(framer.next, None))


@given(st.lists(st.binary(max_size=40).map(lambda data: data.replace(b"\0", b"x")), max_size=8), st.integers(1, 50))
def test_framing_does_not_depend_on_how_bytes_arrive(messages: list[bytes], size: int) -> None:
    stream = b"".join(message + b"\0" for message in messages) + b"rest"
    framer, found = Framer(), []
    for start in range(0, len(stream), size):
        framer.feed(stream[start : start + size])
        found += _messages(framer)
    assert found == messages
    assert framer.unfinished
    assert framer.rest() == b"rest"
    assert not framer.unfinished


def test_a_message_that_never_ends_is_refused_at_the_cap() -> None:
    framer = Framer()
    framer.feed(b" " * (varlink.MESSAGE_LIMIT - 1))
    assert (framer.room, framer.next()) == (1, None)
    framer.feed(b" ")
    with pytest.raises(BrokenMessage, match="longer than 65536 bytes"):
        framer.next()


def test_messages_that_wait_are_no_long_message() -> None:
    framer = Framer()
    framer.feed(b"x\0" * (varlink.MESSAGE_LIMIT // 2))
    assert framer.room == 0
    assert len(_messages(framer)) == varlink.MESSAGE_LIMIT // 2
    assert framer.room == varlink.MESSAGE_LIMIT


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_is_bounded_before_it_is_parsed(opening: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def parsed(*_arguments: object, **_options: object) -> None:
        raise AssertionError("the parser saw it")

    monkeypatch.setattr(json, "loads", parsed)
    with pytest.raises(BrokenMessage, match="deeper than 32"):
        varlink.parse(opening.encode() * (varlink.DEPTH_LIMIT + 1))


def test_brackets_in_strings_do_not_nest_and_width_is_not_depth() -> None:
    value = {"s": "[{" * 200 + '\\"[', "list": [{}] * 100}
    assert not varlink.nests_too_deeply(json.dumps(value).encode())
    assert varlink.parse(json.dumps(value).encode()) == value


def _nested(levels: int) -> Any:
    value: Any = {}
    for _ in range(levels - 1):
        value = {"a": value}
    return value


def test_depth_limit_is_exact() -> None:
    wide: dict[str, Any] = {"w": [[]] * 40}
    fits, too_deep = ({**wide, "a": _nested(levels - 1)} for levels in (varlink.DEPTH_LIMIT, varlink.DEPTH_LIMIT + 1))
    assert varlink.parse(json.dumps(fits).encode()) == fits
    with pytest.raises(BrokenMessage):
        varlink.parse(json.dumps(too_deep).encode())


def test_a_call_has_its_flags_and_loses_its_nulls() -> None:
    text = b'{"method":"io.lcinit.Manager.Logs","parameters":{"follow":true,"after":null},"more":true}'
    assert varlink.parse_call(text) == Call(method="io.lcinit.Manager.Logs", parameters={"follow": True}, more=True)
    assert varlink.parse_call(text).split() == ("io.lcinit.Manager", "Logs")
    assert varlink.parse_call(b'{"method":"a.b","parameters":null}') == Call(method="a.b", parameters={})


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b"{}",
        b'{"method":7}',
        b'{"method":"nodots"}',
        b'{"method":"a.b","parameters":[]}',
        b'{"method":"a.b","more":1}',
        b'{"method":"a.b","more":null}',
        b'{"method":"a.b","surprise":true}',
        b'{"method":"a.b","method":"a.c"}',
        b'{"method":"a.b","parameters":{"x":NaN}}',
        b'{"method":"a.b","parameters":{"x":-Infinity}}',
        b'{"method":"a.b","parameters":{"x":' + b"9" * 5000 + b"}}",
        b'{"method":"\xff\xfe.b"}',
        b'\xef\xbb\xbf{"method":"a.b"}',
        b'{"method":"a.b"} trailing',
    ],
)
def test_what_is_no_call_is_refused(text: bytes) -> None:
    with pytest.raises(BrokenMessage):
        varlink.parse_call(text)


@given(st.binary(max_size=300))
def test_bytes_are_a_call_or_broken_and_nothing_else(data: bytes) -> None:
    try:
        call = varlink.parse_call(data)
    except BrokenMessage:
        return
    assert isinstance(call, Call)


def test_replies_are_ascii_and_end_with_nul() -> None:
    data = varlink.message({"parameters": {"text": "\x1b[31m\u202e\x9b\x00"}})
    assert data.endswith(b"}\0")
    assert data.count(b"\0") == 1
    assert all(32 <= byte < 127 for byte in data[:-1])
    assert json.loads(data[:-1])["parameters"]["text"] == "\x1b[31m\u202e\x9b\x00"


def _reply(**flags: bool) -> tuple[Reply, list[dict[str, Any]]]:
    sent: list[dict[str, Any]] = []
    call = Call(method="a.b", parameters={}, **flags)
    return Reply(call, lambda data: sent.append(json.loads(data[:-1]))), sent


def test_a_call_is_answered_once() -> None:
    reply, sent = _reply()
    reply.end(x=1)
    assert sent == [{"parameters": {"x": 1}}]
    with pytest.raises(RuntimeError, match="twice"):
        reply.fail(MethodError("a.E"))
    assert len(sent) == 1


def test_many_replies_need_more() -> None:
    reply, sent = _reply(more=True)
    reply.more(x=1)
    reply.fail(MethodError("a.E", why="w"))
    assert sent == [{"parameters": {"x": 1}, "continues": True}, {"error": "a.E", "parameters": {"why": "w"}}]
    single, _ = _reply()
    with pytest.raises(RuntimeError, match="no further reply"):
        single.more(x=1)


def test_oneway_is_never_answered() -> None:
    answered, nothing = _reply(oneway=True)
    answered.end()
    failed, neither = _reply(oneway=True)
    failed.fail(MethodError("a.E"))
    assert (nothing, neither, answered.done, failed.done) == ([], [], True, True)


def _taker(**parameters: Any) -> Taker:
    return Taker(Call(method="a.b", parameters=parameters))


@pytest.mark.parametrize(
    ("parameters", "take"),
    [
        ({"x": 1}, lambda t: t.boolean("x")),
        ({"x": "true"}, lambda t: t.boolean("x")),
        ({"x": True}, lambda t: t.integer("x", 0)),
        ({"x": 1.0}, lambda t: t.integer("x", 0)),
        ({"x": -1}, lambda t: t.integer("x", 0)),
        ({"x": 2**53 + 1}, lambda t: t.integer("x", 0)),
        ({}, lambda t: t.integer("x", None)),
        ({"x": 1}, lambda t: t.string("x")),
        ({}, lambda t: t.string("x")),
        ({"x": 1}, lambda t: t.end()),
    ],
)
def test_wrong_parameters_are_named(parameters: dict[str, Any], take: Any) -> None:
    with pytest.raises(MethodError) as caught:
        take(_taker(**parameters))
    assert (caught.value.name, caught.value.parameters) == (
        "org.varlink.service.InvalidParameter",
        {"parameter": "x"},
    )


def test_right_parameters_are_taken() -> None:
    taker = _taker(flag=True, number=3, word="w")
    assert (taker.boolean("flag"), taker.integer("number", None), taker.string("word")) == (True, 3, "w")
    assert (taker.boolean("a"), taker.integer("b", 7), taker.string("c", "d")) == (False, 7, "d")
    taker.end()

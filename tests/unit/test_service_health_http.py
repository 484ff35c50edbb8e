"""HTTP checks as bytes: the URL, the request, the response in pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcinit.config.service_names import parse_http
from lcinit.service.health_http import LARGEST_HEAD, ResponseHead, Target, parse_url, request


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://127.0.0.1", ("127.0.0.1", 80, "127.0.0.1", "/")),
        ("HTTP://127.0.0.1:8080/", ("127.0.0.1", 8080, "127.0.0.1:8080", "/")),
        ("http://127.0.0.1:8080/a/b?c=d#e", ("127.0.0.1", 8080, "127.0.0.1:8080", "/a/b?c=d")),
        ("http://127.0.0.1?c=/d", ("127.0.0.1", 80, "127.0.0.1", "/?c=/d")),
        ("http://[::1]", ("::1", 80, "[::1]", "/")),
        ("http://[::1]:81/x", ("::1", 81, "[::1]:81", "/x")),
    ],
)
def test_a_url_leads_somewhere(url: str, expected: tuple[str, int, str, str]) -> None:
    address, port, host, path = expected
    assert parse_url(url) == Target(address=address, port=port, host=host, path=path)


@pytest.mark.parametrize(
    "url",
    [
        *("", "127.0.0.1", "https://127.0.0.1", "ftp://127.0.0.1/", "http://", "http:///x", "http://:80/"),
        *("http://127.0.0.1:0/", "http://127.0.0.1:65536/", "http://127.0.0.1:x/", "http://[::1/", "http://[::1]x/"),
        *("http://127.0.0.1/a b", "http://127.0.0.1/\r\nX: y", "http://127.0.0.1/ä", "http://127.0.0.1/\x01"),
    ],
)
def test_what_is_no_url_is_said(url: str) -> None:
    with pytest.raises(ValueError, match=r"^(it|an) "):
        parse_url(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1",
        "http://localhost:81?x=/y",
        "http://[::ffff:1.2.3.4]/",
        "http://[::1]:65535/a%20b?c",
        "http://1.1.1.1//",
    ],
)
def test_what_a_configuration_may_hold_leads_somewhere(url: str) -> None:
    assert parse_url(parse_http(url)).address


def test_the_request_is_whole() -> None:
    assert request(parse_url("http://[::1]:81/x?y")) == (
        b"GET /x?y HTTP/1.1\r\nHost: [::1]:81\r\nUser-Agent: lcinit\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    )


def result(data: bytes, size: int | None = None) -> tuple[bool, str] | None:
    """Of a response that comes in pieces of `size` bytes."""
    head = ResponseHead()
    for at in range(0, len(data), size or len(data)):
        found = head.feed(data[at : at + (size or len(data))])
        if found is not None:
            return found
    return None


HEAD = b"HTTP/1.1 %s\r\nServer: x\r\n\r\n"


@pytest.mark.parametrize("size", [None, 1, 2, 3, 7])
@pytest.mark.parametrize(
    ("status", "healthy"),
    [
        *((b"200 OK", True), (b"204", True), (b"301 Moved", True), (b"399 ", True), (b"101 Switch", False)),
        *((b"400 Bad", False), (b"404 Not Found", False), (b"500 Oh", False), (b"503 ", False)),
    ],
)
def test_two_hundred_to_three_hundred_and_ninety_nine_is_healthy(
    status: bytes, healthy: bool, size: int | None
) -> None:
    assert result(HEAD % status + b"body", size) == (healthy, f"HTTP status {status.decode()}")


@pytest.mark.parametrize("size", [None, 1, 5])
def test_interim_responses_are_passed_over(size: int | None) -> None:
    data = HEAD % b"100 Continue" + HEAD % b"103 Early Hints" + HEAD % b"500 no"
    assert result(data, size) == (False, "HTTP status 500 no")
    assert result(HEAD % b"100 Continue", size) is None


@pytest.mark.parametrize("size", [None, 1])
def test_bare_newlines_and_old_versions_pass(size: int | None) -> None:
    assert result(b"HTTP/1.0 200 OK\nServer: x\n\n", size) == (True, "HTTP status 200 OK")


@pytest.mark.row(55)
@pytest.mark.parametrize(
    "line",
    [
        *(b"220 smtp ready", b"SSH-2.0-x", b"", b"HTTP/2 200", b"HTTP/1.1", b"HTTP/1.1 2000 x", b"HTTP/1.1 99 x"),
        *(b"HTTP/1.1 20x", b"\xff\x00\x1b[2J", b"HTTP/1.1  200 OK"),
    ],
)
def test_what_is_no_http_is_said_in_printable_words(line: bytes) -> None:
    found = result(line + b"\r\n\r\n")
    assert found is not None
    assert found[0] is False
    assert found[1].startswith("the server does not speak HTTP/1: ") and found[1].isprintable()
    assert len(found[1]) < 120


def test_a_reason_is_printable_and_short() -> None:
    found = result(HEAD % (b"200 \x1b[2J" + b"x" * 1000))
    assert found is not None and found[0] and found[1].isprintable() and len(found[1]) < 100


@pytest.mark.row(55)
@pytest.mark.parametrize("size", [None, 1000, 4096])
def test_a_head_without_end_is_given_up(size: int | None) -> None:
    assert result(b"HTTP/1.1 200 OK\r\nX: " + b"x" * LARGEST_HEAD, size) == (
        False,
        f"the response's head has more than {LARGEST_HEAD} bytes",
    )
    interim = HEAD % b"100 Continue"
    assert result(interim * (LARGEST_HEAD // len(interim) + 1), size) == (
        False,
        f"the response's head has more than {LARGEST_HEAD} bytes",
    )
    body = b"x" * LARGEST_HEAD * 4
    assert result(HEAD % b"200 OK" + body, size) == (True, "HTTP status 200 OK")


@pytest.mark.row(55)
def test_it_keeps_no_more_than_a_head() -> None:
    head = ResponseHead()
    for _ in range(100):
        head.feed(b"x" * 4096)
    assert len(head._data) == LARGEST_HEAD


@pytest.mark.row(55)
def test_an_end_before_the_head_is_whole_is_a_failure() -> None:
    for begun in (b"", b"HTTP/1.1 200 OK\r\n", HEAD % b"100 Continue"):
        head = ResponseHead()
        assert not begun or head.feed(begun) is None
        assert head.feed(b"") == (False, "the server closed the connection before its response was whole")


@given(st.binary(max_size=2000), st.integers(1, 50))
def test_pieces_of_any_size_mean_the_same(data: bytes, size: int) -> None:
    prefix = b"HTTP/1.1 200 OK\r\n"
    assert result(prefix + data + b"\r\n\r\n", size) == result(prefix + data + b"\r\n\r\n")

"""Id maps: which the kernel takes, which would hurt the outside, and that the rest is refused at its place."""

from __future__ import annotations

import os

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lcinit.config.diagnostics import InvalidFile, Unfit
from lcinit.config.idmaps import MAP_BYTES, MAX_RANGES, map_text, overlap, parse_range, range_fault, range_text
from lcinit.config.load import parse
from lcinit.config.names import MAX_ID
from lcinit.config.values import IdMap, IdRange

IDS = st.integers(0, MAX_ID)


def read(users: str, more: str = "") -> IdMap:
    found = parse(f"id_map: {{users: {users}{more}}}\n".encode(), "f").id_map
    assert found is not None
    return found


def problem(users: str, more: str = "") -> str:
    with pytest.raises(InvalidFile) as caught:
        read(users, more)
    return str(caught.value)


def spread(count: int, first: int = 100_000) -> str:
    """That many ranges of one id, none next to another."""
    return "[" + ", ".join(f"[{2 * n}, {first + 2 * n}]" for n in range(count)) + "]"


@settings(deadline=None)
@given(IDS, IDS, IDS)
def test_a_range_reads_as_it_is_written(inside, outside, size):
    one = IdRange(inside=inside, outside=outside, size=size)
    assert parse_range(range_text(one)) == one
    assert parse_range(f"\t{inside} \n {outside}\v{size} ") == one


@pytest.mark.row(13)
@settings(deadline=None)
@given(st.text(alphabet="0123456789 _+-x.٣\xa0\u2003\0", max_size=12))
def test_a_range_is_ascii_decimal_or_refused(text):
    try:
        one = parse_range(text)
    except Unfit:
        return
    words = text.split()
    assert [str(number) for number in (one.inside, one.outside, one.size)][: len(words)] == words
    assert text.isascii()


@pytest.mark.row(13)
@pytest.mark.parametrize(
    "word", ["1_000", "٣", "0x0", "-1", "4294967295", "4294967296", "+1", "1.0", "01", "1e3", "10000000000"]
)
@pytest.mark.parametrize("form", ['"0 {} 1"', '"0 5 {}"', "[0, {}, 1]", "{{internal: 0, external: {}}}"])
def test_an_id_that_the_kernel_would_not_mean_is_refused_with_its_place(word, form):
    if (word, form) == ("4294967295", '"0 5 {}"'):
        assert "ends outside at 4294967299, above 4294967294" in problem(form.format(word))
        return
    assert problem(form.format(word)).startswith("f:1:")
    assert ": id_map.users" in problem(form.format(word))


@pytest.mark.row(11)
@pytest.mark.parametrize(
    ("users", "fault"),
    [
        ("[0 5 0]", "the range 0 5 0 has no ids"),
        ("[[0, 5, 0]]", "0 is out of range"),
        ("0 1 4294967295", "the range 0 1 4294967295 ends outside at 4294967295, above 4294967294"),
        ("[0 1, 4294967290 5 6]", "the range 4294967290 5 6 ends inside at 4294967295, above 4294967294"),
        ("[0 10 5, 4 20 1]", "the range 4 20 1 overlaps 0 10 5 inside, at 4"),
        ("[0 10 5, 5 14 1]", "the range 5 14 1 overlaps 0 10 5 outside, at 14"),
        ("[0 10 5, 0 10 5]", "the range 0 10 5 overlaps 0 10 5 inside, at 0"),
        ("[4 10 5, 0 20 5]", "the range 0 20 5 overlaps 4 10 5 inside, at 4"),
        ("[]", "is an empty list"),
        ("[0]", "is a range of 1 numbers"),
        ("[0, 1, 2, 3]", "is a range of 4 numbers"),
        ("0", "is the number 0; write one range or a list of ranges"),
        ('""', "is empty"),
        ("{internal: 0}", "the key external is missing"),
    ],
)
def test_refused_map(users, fault):
    assert fault in problem(users)


@pytest.mark.row(11)
@pytest.mark.parametrize(
    "users", ["[0 10 5, 5 15 5]", "[5 5 5, 0 10 5]", "0 1 4294967294", "[0 1 1, 4294967294 4294967294 1]"]
)
def test_accepted_map(users):
    assert read(users).users


@pytest.mark.row(11)
def test_a_map_must_fit_into_one_write_below_a_page():
    ranges = read(spread(MAX_RANGES, 1000)).users
    assert len(ranges) == MAX_RANGES
    assert len(map_text(ranges)) < MAP_BYTES
    assert f"has {MAX_RANGES + 1} ranges, and the kernel takes {MAX_RANGES}" in problem(spread(MAX_RANGES + 1, 1000))
    long = spread(300, 1_000_000_000)
    assert "bytes, and the kernel takes less than 4096 in one write" in problem(long)


@pytest.mark.row(11)
def test_the_last_byte_of_a_page_is_the_limit():
    lines = [f"{100_000 + 2 * n} {900_000 + 2 * n} 1" for n in range(254)]
    fits = ["0 4000000000 1", "1 5000000 10000", *lines]
    assert sum(len(line) + 1 for line in fits) == MAP_BYTES - 1
    assert len(read(str(fits).replace("'", '"')).users) == 256
    one_more = ["0 4000000000 1", "10 5000000 10000", *lines]
    assert f"takes {MAP_BYTES} bytes" in problem(str(one_more).replace("'", '"'))


@pytest.mark.row(10)
@pytest.mark.parametrize("users", ["0 0 1", "0 0", "[0 5 5, 5 0 1]", "[[0, 0, 65536]]", "{internal: 0, external: 0}"])
def test_the_outer_root_is_given_away_only_by_name(users):
    found = problem(users)
    assert "gives the guest the outer root's id 0; map to another id, or write id_map.allow_outer_root: true" in found
    assert read(users, ", allow_outer_root: true").users
    config = parse(f"id_map: {{users: {users}, allow_outer_root: true}}".encode(), "f")
    assert config.allow_outer_root is True


@pytest.mark.row(10)
def test_a_map_without_the_guests_root_is_an_error_and_not_completed():
    assert "has no range for the guest's id 0" in problem("1 1000000 10")
    assert "f:1:39: id_map.groups: has no range for" in problem("0 1000000 10", ", groups: 1 1000000 9")


def test_an_omitted_side_takes_the_ranges_of_the_other():
    assert read("0 1000 5").groups == (IdRange(inside=0, outside=1000, size=5),)
    groups = parse(b"id_map: {groups: 0 1000 5}", "f").id_map
    assert groups is not None
    assert groups.users == groups.groups


def test_the_map_of_a_mount_needs_no_guest_root():
    (mount,) = parse(b"mounts: [{source: /a, target: /b, id_map: {users: 5 1000 5}}]", "f").mounts
    assert mount.id_map is not None
    assert mount.id_map.users == (IdRange(inside=5, outside=1000, size=5),)
    with pytest.raises(InvalidFile, match=r"mounts\[0\].id_map.users: the range 5 0 5 gives the guest the outer root"):
        parse(b"mounts: [{source: /a, target: /b, id_map: {users: 5 0 5}}]", "f")


RANGES = st.builds(IdRange, inside=st.integers(0, 40), outside=st.integers(0, 40), size=st.integers(1, 9))


@settings(deadline=None)
@given(st.tuples(RANGES, RANGES))
def test_overlap_is_what_sets_of_ids_say(pair):
    one, other = pair
    shared = [
        set(range(getattr(one, column), getattr(one, column) + one.size))
        & set(range(getattr(other, column), getattr(other, column) + other.size))
        for column in ("inside", "outside")
    ]
    assert bool(overlap(one, other)) == any(shared)
    if any(shared):
        assert overlap(one, other).endswith(f"at {min(next(filter(None, shared)))}")


@settings(deadline=None)
@given(IDS, IDS, st.integers(0, 2**32))
def test_a_range_is_at_fault_exactly_when_it_leaves_the_ids(inside, outside, size):
    one = IdRange(inside=inside, outside=outside, size=size)
    assert bool(range_fault(one)) == (size < 1 or inside + size - 1 > MAX_ID or outside + size - 1 > MAX_ID)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: writes the uid_map of a child")
@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("0 1000000 65536\n", True),
        ("0 10 5\n5 15 5\n", True),
        ("0 10 5\n4 20 1\n", False),
        ("0 10 5\n5 14 1\n", False),
        ("".join(f"{2 * n} {1000 + 2 * n} 1\n" for n in range(MAX_RANGES)), True),
        ("".join(f"{2 * n} {1000 + 2 * n} 1\n" for n in range(MAX_RANGES + 1)), False),
        ("0 4294967294 1\n", True),
        ("0 4294967295 1\n", False),
    ],
)
def test_the_kernel_draws_the_same_lines(text, taken):
    """What is refused here is what user_namespaces(7) says: tried on the running kernel."""
    import ctypes

    ready, go = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        done = ctypes.CDLL(None, use_errno=True).unshare(0x10000000)  # CLONE_NEWUSER
        os.write(ready[1], b"y" if done == 0 else b"n")
        os.read(go[0], 1)
        os._exit(0)
    try:
        if os.read(ready[0], 1) != b"y":
            pytest.skip("user namespaces are not permitted here")
        file = os.open(f"/proc/{child}/uid_map", os.O_WRONLY)
        try:
            written = os.write(file, text.encode()) == len(text)
        except OSError:
            written = False
        finally:
            os.close(file)
        assert written is taken
    finally:
        os.write(go[1], b"x")
        os.waitpid(child, 0)
        for end in (*ready, *go):
            os.close(end)

"""Which ids a guest of `run`, `contain` or `pseudo` gets: the options, the defaults, the files of subuid(5)."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcinit.config.values import IdRange
from lcinit.errors import EX_NOPERM, EX_USAGE, ConfigError, LcinitError, UsageError
from lcinit.tools import id_ranges, subids
from lcinit.tools.contain_options import Choice, Side, choose, parse_map

LAST = 2**32 - 2
WHOLE = ((0, LAST),)
NO_RANGES = (
    *("", "0", "0:1", "0:1:", ":0:1", "0:1:1:1", "0:1:1,", "0 1 1", "0: 1:1", "0:1:0"),
    *("0:\u0661:1", "0:1_0:1", "0:0x5:1", "0:-1:1", "0:+1:1", "0:01:1", "00:1:1"),
    *("0:4294967295:1", "0:4294967294:2", "4294967295:1:1", "0:1:99999999999"),
)


def side(kind: str = "uid", **changes: Any) -> Side:
    facts: dict[str, Any] = {"kind": kind, "own_id": 0, "own": WHOLE, "privileged": True} | changes
    return Side(**facts)


def sides(**changes: Any) -> tuple[Side, Side]:
    return side("uid", **changes), side("gid", **changes)


def lines(*ranges: tuple[str, int, int]) -> tuple[subids.SubRange, ...]:
    return tuple(
        subids.SubRange(user=user, first=first, size=size, place=f"/etc/subuid:{number}")
        for number, (user, first, size) in enumerate(ranges, start=1)
    )


def users_of(choice: Choice) -> list[tuple[int, int, int]]:
    return [(r.inside, r.outside, r.size) for r in choice.id_map.users]


def test_a_map_is_a_list_of_ranges() -> None:
    assert parse_map("0:1000:1,1:4000:2000", "-u") == (
        IdRange(inside=0, outside=1000, size=1),
        IdRange(inside=1, outside=4000, size=2000),
    )


@pytest.mark.row(13)
@pytest.mark.parametrize(
    "text",
    NO_RANGES,
)
def test_what_is_no_range_is_refused_and_named(text: str) -> None:
    with pytest.raises(UsageError) as refused:
        parse_map(text, "-u")
    assert refused.value.message.startswith("-u: ")
    assert refused.value.exit_code == EX_USAGE


@pytest.mark.row(11)
@pytest.mark.parametrize("text", ["0:100:10,5:500:1", "0:100:10,20:109:1", "0:1:1,0:2:1"])
def test_ranges_that_overlap_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="overlaps"):
        parse_map(text, "-g")


def test_a_map_without_the_guests_root_is_refused() -> None:
    with pytest.raises(UsageError, match="no range for id 0"):
        parse_map("1:100:10", "-u")


def test_a_map_that_the_kernel_would_not_take_whole_is_refused() -> None:
    with pytest.raises(UsageError, match="341 ranges are too many"):
        parse_map(",".join(f"{n}:{n + 1}:1" for n in range(341)), "-u")


@pytest.mark.row(10)
@pytest.mark.parametrize("name", ["run", "contain", "pseudo"])
def test_outer_root_is_refused_to_root(name: str) -> None:
    with pytest.raises(ConfigError, match="gives the guest the outer root's id 0") as refused:
        choose("0:0:1", "0:0:1", sides(), name, (0, 0))
    assert refused.value.exit_code == EX_NOPERM


@pytest.mark.row(10)
def test_id_0_that_is_an_ordinary_user_outside_may_be_the_guests_root() -> None:
    below: dict[str, Any] = {"own": ((0, 0),), "root_below": True}
    assert users_of(choose("0:0:1", "0:0:1", sides(**below), "run", (0, 0))) == [(0, 0, 1)]
    for name in ("run", "contain", "pseudo"):
        assert users_of(choose(None, None, sides(**below), name, (0, 0))) == [(0, 0, 1)]


def test_an_id_that_does_not_exist_here_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="uid 70000 of the range 0 65000 10000 does not exist"):
        choose("0:65000:10000", None, sides(own=((0, 69999),)), "contain", (0, 0))


def test_run_takes_the_other_sides_ranges_and_contain_its_own_default() -> None:
    given_users = choose("0:5000:10", None, sides(), "run", (0, 0))
    assert given_users.id_map.groups == given_users.id_map.users
    contained = choose("0:5000:10", None, sides(), "contain", (0, 0))
    assert [r.outside for r in contained.id_map.groups] == [LAST, 1]


@pytest.mark.parametrize("name", ["contain", "pseudo"])
def test_root_is_the_highest_id_and_the_others_are_themselves(name: str) -> None:
    assert users_of(choose(None, None, sides(), name, (0, 0))) == [(0, LAST, 1), (1, 1, LAST - 1)]


def test_the_highest_id_is_that_of_this_user_namespace() -> None:
    own = ((0, 99), (200, 299))
    assert users_of(choose(None, None, sides(own=own), "contain", (0, 0))) == [(0, 299, 1), (1, 1, 99), (200, 200, 99)]


def test_a_user_namespace_with_root_alone_has_nothing_to_give() -> None:
    with pytest.raises(ConfigError, match="no uid beside 0"):
        choose(None, None, sides(own=((0, 0),)), "contain", (0, 0))


def test_run_as_root_takes_the_first_free_piece_of_subuid() -> None:
    given_to_root: dict[str, Any] = {"delegated": lines(("root", 100000, 131072)), "used": ((100000, 65536),)}
    assert users_of(choose(None, None, sides(**given_to_root), "run", (0, 0))) == [(0, 165536, 65536)]


def test_run_takes_the_piece_that_the_guests_files_belong_to() -> None:
    given_to_root: dict[str, Any] = {"delegated": lines(("root", 100000, 131072)), "used": ((165536, 65536),)}
    assert users_of(choose(None, None, sides(**given_to_root), "run", (165536, 165536))) == [(0, 165536, 65536)]


def test_run_shares_a_range_when_all_are_in_use_and_says_so() -> None:
    given_to_root: dict[str, Any] = {"delegated": lines(("root", 100000, 65536)), "used": ((100000, 65536),)}
    choice = choose(None, None, sides(**given_to_root), "run", (0, 0))
    assert users_of(choice) == [(0, 100000, 65536)]
    assert "this guest shares 100000-165535" in choice.notes[0]


def test_run_as_root_without_a_range_says_which_line_to_add() -> None:
    with pytest.raises(ConfigError) as refused:
        choose(None, None, sides(problems=("/etc/subuid:3: the range has no ids",)), "run", (0, 0))
    assert "/etc/subuid has no usable range for root; /etc/subuid:3: the range has no ids" in refused.value.message
    assert "add the line root:1000000:65536 to /etc/subuid" in refused.value.hint
    assert refused.value.exit_code == 78


def ordinary(**changes: Any) -> tuple[Side, Side]:
    facts = {"own_id": 1000, "privileged": False, "user": "tester", "program": True} | changes
    return sides(**facts)


@pytest.mark.parametrize("name", ["run", "contain", "pseudo"])
def test_an_ordinary_user_is_root_alone(name: str) -> None:
    choice = choose(None, None, ordinary(), name, (0, 0))
    assert users_of(choice) == [(0, 1000, 1)]
    assert choice.simple


@pytest.mark.row(10)
@pytest.mark.parametrize("name", ["run", "contain", "pseudo"])
def test_root_without_capabilities_is_no_ordinary_user_whose_id_a_guest_could_have(name: str) -> None:
    with pytest.raises(LcinitError, match="can map its own uid 0, which no guest gets") as refused:
        choose(None, None, sides(privileged=False, own_id=0), name, (0, 0))
    assert refused.value.exit_code == EX_NOPERM


def test_delegated_ranges_follow_the_users_own_id() -> None:
    delegated = lines(("tester", 100000, 10000), ("tester", 120000, 10000))
    choice = choose(None, None, ordinary(delegated=delegated), "contain", (0, 0))
    assert users_of(choice) == [(0, 1000, 1), (1, 100000, 10000), (10001, 120000, 10000)]
    assert not choice.simple


def test_without_newuidmap_the_delegated_ranges_are_left_out_and_that_is_said() -> None:
    choice = choose(None, None, ordinary(delegated=lines(("tester", 100000, 10)), program=False), "run", (0, 0))
    assert users_of(choice) == [(0, 1000, 1)]
    assert "newuidmap is not installed" in choice.notes[0]


def test_ids_that_were_not_given_are_refused_with_the_line_that_would() -> None:
    with pytest.raises(LcinitError) as refused:
        choose("0:1000:1,1:100000:11", None, ordinary(delegated=lines(("tester", 100000, 10))), "contain", (0, 0))
    assert "uid 100000-100010 was not given to you" in refused.value.message
    assert "tester:100000:11 to /etc/subuid" in refused.value.hint
    assert refused.value.exit_code == EX_NOPERM


def test_ranges_that_touch_are_one() -> None:
    delegated = lines(("tester", 100000, 10), ("tester", 100010, 10))
    choice = choose("0:1000:1,1:100005:10", "0:1000:1", ordinary(delegated=delegated), "contain", (0, 0))
    assert users_of(choice) == [(0, 1000, 1), (1, 100005, 10)]


def test_another_users_id_is_refused() -> None:
    with pytest.raises(LcinitError, match="uid 1001 was not given to you"):
        choose("0:1001:1", None, ordinary(), "pseudo", (0, 0))


def test_a_given_range_without_newuidmap_is_refused() -> None:
    with pytest.raises(LcinitError, match="newuidmap, which is not installed"):
        choose("0:100000:5", None, ordinary(delegated=lines(("tester", 100000, 10)), program=False), "run", (0, 0))


def test_subuid_lines_are_read_with_their_places() -> None:
    text = "root:100000:65536\n# comment\n\ntester:200000:65536\n1000:300000:5\n"
    ranges, problems = subids.parse(text, "/etc/subuid")
    assert problems == []
    assert [(r.user, r.first, r.size, r.place) for r in ranges] == [
        ("root", 100000, 65536, "/etc/subuid:1"),
        ("tester", 200000, 65536, "/etc/subuid:4"),
        ("1000", 300000, 5, "/etc/subuid:5"),
    ]
    own, unusable = subids.delegated(ranges, ("tester", "1000"))
    assert [r.first for r in own] == [200000, 300000]
    assert unusable == []


@pytest.mark.row(13)
@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("tester:1:2:3", "is not USER:FIRST:SIZE"),
        ("tester", "is not USER:FIRST:SIZE"),
        (":1:2", "is not USER:FIRST:SIZE"),
        ("tester:0x10:2", "'0x10' is no plain decimal number"),
        ("tester:1_000:2", "'1_000' is no plain decimal number"),
        ("tester:010:2", "'010' is no plain decimal number"),
        ("tester:٣:2", "is no plain decimal number"),
        ("tester:-1:2", "'-1' is no plain decimal number"),
        ("tester:5:", "'' is no plain decimal number"),
        ("tester:5:0", "the range has no ids"),
        ("tester:4294967290:10", "ends at 4294967299, above 4294967294"),
    ],
)
def test_broken_lines_are_told_with_their_place_and_the_others_count(line: str, why: str) -> None:
    ranges, problems = subids.parse(f"other:1:1\n{line}\ntester:100:5", "/etc/subgid")
    assert [r.first for r in ranges] == [1, 100]
    assert len(problems) == 1
    assert problems[0].startswith("/etc/subgid:2: ")
    assert why in problems[0]


def test_overlaps_are_told_with_both_places_and_the_later_is_not_used() -> None:
    text = "tester:100000:65536\nother:150000:10\ntester:300000:10\ntester:300005:10\ntester:0:5\n"
    ranges, _ = subids.parse(text, "/etc/subuid")
    own, problems = subids.delegated(ranges, ("tester",))
    assert [r.first for r in own] == [300000]
    assert problems == [
        "/etc/subuid:1: the range of tester overlaps other's at /etc/subuid:2, from id 150000",
        "/etc/subuid:4: the range of tester overlaps tester's at /etc/subuid:3, from id 300005",
        "/etc/subuid:5: the range of tester begins with id 0, which is root's",
    ]


RANGE = st.tuples(st.integers(0, LAST), st.integers(1, 1 << 20)).filter(lambda r: r[0] + r[1] - 1 <= LAST)


@given(st.lists(RANGE, max_size=6), RANGE)
def test_missing_id_agrees_with_looking_at_every_boundary(
    pieces: list[tuple[int, int]], wanted: tuple[int, int]
) -> None:
    runs = id_ranges.runs(pieces)
    first, size = wanted
    absent = id_ranges.missing_id(first, size, runs)

    def exists(number: int) -> bool:
        return any(low <= number < low + count for low, count in pieces)

    # a range can only begin to be missing at its own first id, or one past some piece
    candidates = sorted({first, *(low + count for low, count in pieces)})
    expected = next((n for n in candidates if first <= n < first + size and not exists(n)), None)
    assert absent == expected


@given(st.lists(RANGE, min_size=1, max_size=6).map(id_ranges.runs))
@pytest.mark.row(10)
def test_the_default_of_contain_never_gives_outer_root_and_never_an_id_twice(own: list[tuple[int, int]]) -> None:
    ranges = id_ranges.highest_for_root(own)
    if ranges is None:
        assert own == [(0, 0)]
        return
    outside = sorted((o, n) for _, o, n in ranges)
    assert all(o > 0 for o, _ in outside)
    assert all(a + n <= b for (a, n), (b, _) in pairwise(outside))
    assert all(id_ranges.missing_id(o, n, own) is None for o, n in outside)

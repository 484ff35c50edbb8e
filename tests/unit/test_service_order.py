"""Which service starts after which, cycles by their names, and what a start pulls in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcinit.config.service_values import Service
from lcinit.service.order import Graph, cycles, start_order


def graph(**services: dict[str, tuple[str, ...]]) -> Graph:
    return Graph({name: Service(name=name, **keys) for name, keys in services.items()})  # type: ignore[arg-type]


def test_what_is_required_or_wanted_comes_first() -> None:
    made = graph(app={"requires": ("db",), "wants": ("cache",)}, db={}, cache={"start_after": ("db",)})
    assert start_order(made, made.services) == ("db", "cache", "app")
    assert made.before == {"app": [], "db": ["app", "cache"], "cache": ["app"]}


def test_start_before_is_start_after_from_the_other_side() -> None:
    assert start_order(graph(a={}, b={"start_before": ("a",)}), {"a", "b"}) == ("b", "a")


def test_names_that_nobody_defines_order_nothing() -> None:
    made = graph(a={"start_after": ("ghost",), "start_before": ("ghost",), "requires": ("missing",)})
    assert start_order(made, {"a"}) == ("a",)
    assert made.missing("a") == ("missing",)


def test_a_start_pulls_in_requires_and_wants_and_no_more() -> None:
    made = graph(a={"requires": ("b",), "start_after": ("d",)}, b={"wants": ("c",)}, c={"requires": ("a",)}, d={}, e={})
    assert made.pulled_in(("a", "nobody")) == {"a", "b", "c"}


def test_those_that_require_it_go_down_with_it() -> None:
    made = graph(db={}, app={"requires": ("db",)}, web={"requires": ("app",)}, cron={"wants": ("db",)})
    assert made.dependent(("db",)) == {"db", "app", "web"}


@pytest.mark.row(54)
@pytest.mark.parametrize(
    ("services", "expected"),
    [
        ({"a": {"start_after": ("a",)}}, (("a",),)),
        ({"a": {"requires": ("b",)}, "b": {"requires": ("a",)}}, (("a", "b"),)),
        (
            {
                "a": {"wants": ("b",)},
                "b": {"start_after": ("c",)},
                "c": {"start_after": ("a",)},
                "d": {"wants": ("a",)},
            },
            (("a", "b", "c"),),
        ),
        ({"a": {"start_before": ("b",)}, "b": {"start_before": ("a",)}, "x": {}}, (("a", "b"),)),
        (
            {"a": {"wants": ("b",)}, "b": {"wants": ("a",)}, "c": {"wants": ("d", "a")}, "d": {"wants": ("c",)}},
            (("a", "b"), ("c", "d")),
        ),
    ],
)
def test_cycles_are_told_by_their_names(
    services: dict[str, dict[str, tuple[str, ...]]], expected: tuple[tuple[str, ...], ...]
) -> None:
    made = graph(**services)
    assert cycles(made) == expected
    assert not set(start_order(made, made.services)) & {name for circle in expected for name in circle}


NAMES = tuple("abcdefgh")


@given(st.dictionaries(st.sampled_from(NAMES), st.sets(st.sampled_from(NAMES))))
def test_an_order_is_one_and_what_it_leaves_out_is_behind_a_cycle(edges: dict[str, set[str]]) -> None:
    made = graph(**{name: {"start_after": tuple(after)} for name, after in edges.items()})
    order = start_order(made, made.services)
    for at, name in enumerate(order):
        assert made.after[name] <= set(order[:at])
    circles = cycles(made)
    for circle in circles:
        for name, following in zip(circle, (*circle[1:], circle[0]), strict=True):
            assert following in made.after[name]
    left = set(made.services) - set(order)
    assert bool(left) == bool(circles)
    assert all(made.after[name] & left for name in left)


def test_ten_thousand_in_a_row_are_no_trouble() -> None:
    count = 10_000
    made = Graph({f"s{n}": Service(name=f"s{n}", start_after=(f"s{n - 1}",)) for n in range(count)})
    assert start_order(made, made.services)[-1] == f"s{count - 1}"
    assert cycles(made) == ()

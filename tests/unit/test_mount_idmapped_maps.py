"""The maps that mount-idmapped takes."""

import pytest

from lcinit.errors import SystemFailure, UsageError
from lcinit.supervisor.userns import MAX_RANGES, user_namespace_with
from lcinit.tools.mount_idmapped import Maps, parse_maps


def test_types_name_the_sides() -> None:
    maps = parse_maps(["u:0:10:1", "uid:1:20:2", "g:0:30:3", "gid:3:40:4", "b:9:90:1", "both:7:70:1"])
    assert maps.users == ((0, 10, 1), (1, 20, 2), (9, 90, 1), (7, 70, 1))
    assert maps.groups == ((0, 30, 3), (3, 40, 4), (9, 90, 1), (7, 70, 1))


def test_a_path_is_a_namespace_and_stands_alone() -> None:
    assert parse_maps(["/proc/1/ns/user"]) == Maps(namespace="/proc/1/ns/user")
    with pytest.raises(UsageError, match="cannot be combined"):
        parse_maps(["/proc/1/ns/user", "b:0:1:1"])


@pytest.mark.row(13)
@pytest.mark.parametrize(
    "text",
    [
        "",
        "b",
        "b:0:1",
        "b:0:1:2:3",
        "x:0:1:1",
        "B:0:1:1",
        "b:0:1:0",
        "b:-1:1:1",
        "b:+1:1:1",
        "b:0x0:1:1",
        "b:010:1:1",
        "b:1_000:1:1",
        "b:٣:1:1",
        "b: 1:1:1",
        "b:0:1:1\n",
        "b:4294967295:0:1",
        "b:0:4294967295:1",
        "b:4294967294:0:2",
        "b:0:0:4294967296",
        "b:99999999999999999999:0:1",
    ],
)
def test_what_is_no_map_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_maps([text])


def test_the_whole_range_of_ids_is_a_map() -> None:
    assert parse_maps(["b:0:0:4294967295"]).users == ((0, 0, 4294967295),)


@pytest.mark.row(11)
def test_more_ranges_than_the_kernel_takes_are_refused_before_anything_is_made() -> None:
    with pytest.raises(SystemFailure, match="341 ranges") as caught:
        user_namespace_with([(2 * i, 2 * i, 1) for i in range(MAX_RANGES + 1)], [])
    assert caught.value.exit_code == 78
    with pytest.raises(SystemFailure, match="fewer than 4096 bytes"):
        user_namespace_with([], [(4_000_000_000 + 2 * i, 4_000_000_000 + 2 * i, 1) for i in range(200)])

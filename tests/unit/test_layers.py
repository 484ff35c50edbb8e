"""The layers of docs/architecture.md, read from the imports."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator

import pytest

PACKAGE = os.path.join(os.path.dirname(__file__), "..", "..", "lcinit")
LAYERS = ("linux", "config", "plan", "supervisor", "boot", "control", "service", "guest", "tools", "cli")
FREE = ("errors", "imports", "log", "record", "")  # what every layer but linux may use

# Modules of a layer that turn values into values and touch nothing.
PURE = (
    "plan",
    "config/values.py",
    "config/schema.py",
    "config/shapes.py",
    "config/checks.py",
    "config/idmaps.py",
    "config/names.py",
    "config/service_checks.py",
    "config/service_names.py",
    "config/service_schema.py",
    "config/service_values.py",
    "config/commands.py",
    "control/initctl.py",
    "control/ratelimit.py",
    "control/reboot_call.py",
    "control/stopping.py",
    "guest/order.py",
    "service/aggregate.py",
    "service/changes.py",
    "service/exits.py",
    "service/health_state.py",
    "service/log_lines.py",
    "service/machine.py",
    "service/notifications.py",
    "service/order.py",
    "service/restarts.py",
    "service/states.py",
    "service/runlevels.py",
    "control/varlink.py",
    "guest/asking.py",
    "tools/contain_options.py",
    "tools/id_ranges.py",
    "tools/subids.py",
    "supervisor/guest_state.py",
    "supervisor/backoff.py",
    "supervisor/meanings.py",
)
IMPURE = {"asyncio", "os", "time", "uvloop", "socket", "subprocess", "threading", "random", "datetime"}


def modules() -> Iterator[str]:
    for directory, _, names in os.walk(PACKAGE):
        for name in sorted(names):
            if name.endswith(".py"):
                yield os.path.relpath(os.path.join(directory, name), PACKAGE)


def imports_of(path: str) -> set[str]:
    """Everything a module imports at run time, anywhere in it, by full name."""
    with open(os.path.join(PACKAGE, path), encoding="utf-8") as file:
        tree = ast.parse(file.read())
    found: set[str] = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            pending += node.orelse
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = os.path.dirname(path).replace("/", ".")
                base = f"lcinit.{package}.{base}".rstrip(".") if package else f"lcinit.{base}"
            found |= {f"{base}.{alias.name}" for alias in node.names}
        pending += ast.iter_child_nodes(node)
    return found


def layer_of(name: str) -> str:
    """The layer of `lcinit.LAYER.module.name`; "" for what stands beside the layers."""
    part = name.split(".")[1] if "." in name else ""
    return part if part in (*LAYERS, *FREE) else ""


def is_allowed(own: str, path: str, target: str) -> bool:
    """Whether a module of layer `own` may import one of layer `target`."""
    if own == "linux":
        return target == "linux"
    if target not in LAYERS:
        return True
    return LAYERS.index(target) <= LAYERS.index(own) if own in LAYERS else path == "__main__.py"


@pytest.mark.parametrize("path", sorted(modules()))
def test_arrows_point_only_to_lower_layers(path: str) -> None:
    own = path.split("/")[0] if "/" in path else ""
    wrong = []
    for name in imports_of(path):
        if name.split(".")[0] != "lcinit":
            continue
        if not is_allowed(own, path, layer_of(name)):
            wrong.append(name)
    assert wrong == []


@pytest.mark.parametrize("path", sorted(p for p in modules() if p.startswith(tuple(PURE))))
def test_pure_modules_touch_nothing(path: str) -> None:
    assert sorted(name for name in imports_of(path) if name.split(".")[0] in IMPURE) == []


def test_nothing_imports_a_command_but_the_entry_points() -> None:
    users = {
        path
        for path in modules()
        if not path.startswith("cli/") and any(name.startswith("lcinit.cli") for name in imports_of(path))
    }
    assert users == {"__main__.py"}


@pytest.mark.parametrize("path", sorted(p for p in modules() if p.startswith("linux/")))
def test_the_kernel_seam_is_standard_library_alone(path: str) -> None:
    import sys

    for name in imports_of(path):
        top = name.split(".")[0]
        assert top in sys.stdlib_module_names or name.startswith("lcinit.linux") or top == "", name


@pytest.mark.parametrize("path", sorted(modules()))
def test_files_are_short(path: str) -> None:
    with open(os.path.join(PACKAGE, path), encoding="utf-8") as file:
        assert sum(1 for _ in file) <= 400, "split it: one subject a file"

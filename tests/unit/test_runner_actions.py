"""What the steps of a plan are done by: named in a table, imported for the plans that have them."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import lcinit
from lcinit.boot import runner
from lcinit.plan import file_steps, steps
from lcinit.plan.step import Step

KINDS = sorted(
    {
        each
        for module in (steps, file_steps)
        for _, each in inspect.getmembers(module, inspect.isclass)
        if issubclass(each, Step) and each.kind != Step.kind
    },
    key=lambda kind: kind.__name__,
)
# done by the runner itself, without another module, or by those who go on at a split
BY_OTHERS = {steps.WriteIdMap, steps.KeepServices, *runner.SPLITS}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_step_is_done_by_somebody(kind: type[Step]) -> None:
    assert (kind in runner.DO) + (kind in runner.USES) + (kind in BY_OTHERS) == 1


@pytest.mark.parametrize("kind", runner.DO)
def test_each_function_is_there_and_takes_a_world_and_a_step(kind: type[Step]) -> None:
    assert len(inspect.signature(runner.action(kind)).parameters) == 2


@pytest.mark.parametrize("kind", runner.USES)
def test_each_module_is_there(kind: type[Step]) -> None:
    __import__(f"lcinit.boot.{runner.USES[kind]}")


def test_a_plan_imports_what_its_own_steps_need() -> None:
    code = f"""
import sys
sys.path.append({str(Path(lcinit.__file__).parent.parent)!r})
from lcinit.boot import guard, runner
from lcinit.plan import steps as s
class Plan:
    steps = (s.LoopbackUp(phase="setup"), s.MoveInterfaces(phase="setup", names=(), why=""))
class World:
    plan = Plan
print("lcinit.boot.network" in sys.modules)
runner.Runner(World)
guard.close()
print("lcinit.boot.network" in sys.modules, "lcinit.boot.extra" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("False\nTrue False\n", "")

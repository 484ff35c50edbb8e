"""A plan for its reader: text in columns, or data for JSON. Pure."""

from __future__ import annotations

from lcinit.plan.build import Plan
from lcinit.plan.facts import Machine
from lcinit.plan.steps import PHASES
from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def as_text(plan: Plan, machine: Machine) -> str:
    """One line a step under the name of its phase: what, where, why."""
    lines = [f"manager: {plan.manager}" + ("" if machine.pid == 1 else f" (this is process {machine.pid}, not PID 1)")]
    number = 0
    for phase in PHASES:
        steps = [step for step in plan.steps if step.phase == phase]
        lines.append(f"{phase}:" + ("" if steps else " nothing"))
        for step in steps:
            number += 1
            where = f"  [{step.where()}]" if step.where() else ""
            why = f"  ({step.why})" if step.why else ""
            lines.append(f"  {number:2}  {step.what()}{where}{why}")
    lines += [f"note: {note}" for note in plan.notes]
    lines += [f"warning: {warning}" for warning in plan.warnings]
    return "\n".join(lines) + "\n"


def as_data(plan: Plan, pid: int) -> dict[str, Any]:
    """The plan of process `pid` as JSON types; every step with all its fields."""
    return {
        "manager": plan.manager,
        "pid": pid,
        "steps": [plain(step.facts()) for step in plan.steps],
        "notes": list(plan.notes),
        "warnings": list(plan.warnings),
        "supervision": None if plan.supervision is None else plan.supervision.values(),
    }


def plain(value: object) -> Any:
    """Records as dictionaries, tuples as lists, pairs of strings kept as pairs."""
    if isinstance(value, Record):
        return {name: plain(each) for name, each in value.values().items()}
    if isinstance(value, dict):
        return {str(name): plain(each) for name, each in value.items()}
    if isinstance(value, (tuple, list, frozenset)):
        return [plain(each) for each in value]
    return value

"""When a service is unhealthy: what the results of its checks come to. Pure: no clock, no check.

As docker's HEALTHCHECK: failures of checks that began in the start period do not count until one has succeeded, and so
many in a row make it unhealthy.
"""

from __future__ import annotations

from lcinit.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    from lcinit.config.service_values import Health


class HealthState(Record):
    """What is known since the service is up. `proven`: a check has succeeded, and the start period is over with it."""

    failures: int = 0
    proven: bool = False
    word: Literal["starting", "healthy", "unhealthy"] = "starting"


def judge(rules: Health, state: HealthState, ok: bool, began: float) -> tuple[HealthState, bool]:
    """After a check that began so many seconds after the service was up: the new state, and whether it has become
    unhealthy with it, for which the action is due.
    """
    if ok:
        return HealthState(proven=True, word="healthy"), False
    if not state.proven and began < rules.start_period:
        return state, False
    failures = state.failures + 1
    unhealthy = failures >= rules.failures
    became = unhealthy and state.word != "unhealthy"
    return state.replace(failures=min(failures, rules.failures), word="unhealthy" if unhealthy else state.word), became

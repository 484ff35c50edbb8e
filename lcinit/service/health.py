"""The health checks of one service, repeated while it is up: exec, tcp or http.

A check can fail in any way it likes: that is its result, and never PID 1's trouble. What the results come to is
decided in health_state.py.
"""

from __future__ import annotations

import asyncio

import lcinit.linux.signals  # noqa: F401 (describe_status has it imported, which may be too late)
from lcinit import log
from lcinit.errors import LcinitError
from lcinit.service.health_http import Exchange, parse_url
from lcinit.service.health_state import HealthState, judge
from lcinit.service.tcp import Stream
from lcinit.supervisor.reaper import describe_status

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task
    from collections.abc import Awaitable, Callable

    from lcinit.config.service_values import Health
    from lcinit.config.values import Command
    from lcinit.supervisor.reaper import Status

LEAST_INTERVAL = 0.05  # seconds between two checks whatever the interval is: PID 1 has other things to do


class HealthChecker:
    """Checks from `start` to `stop`: first one interval after the start, then one interval after each check's end.

    `run` runs a command of the service and returns its status; it has so many seconds, and a negative status says that
    they were too few. It is cancelled when they are over or the checks stop, and has to end the command then.
    `on_result` is called after each check with its success and a word on it, `on_unhealthy` after that when the service
    has become unhealthy: once, until a check has succeeded again. Either may call `stop`.
    """

    def __init__(
        self,
        rules: Health,
        run: Callable[[Command, float], Awaitable[Status]],
        on_result: Callable[[bool, str], object],
        on_unhealthy: Callable[[str], object],
    ) -> None:
        self._rules = rules
        self._run = run
        self._on_result = on_result
        self._on_unhealthy = on_unhealthy
        self._state = HealthState()
        self._task: Task[None] | None = None

    def start(self) -> None:
        """The service is up: the start period begins. Needs the running loop."""
        self.stop()
        self._state = HealthState()
        loop = asyncio.get_running_loop()
        self._task = loop.create_task(self._repeat(loop, loop.time()))
        self._task.add_done_callback(_tell_failure)

    def stop(self) -> None:
        """No more checks and no more calls; one that is under way is cancelled."""
        if self._task is not None:
            self._task.cancel()
            self._task = None

    async def _repeat(self, loop: AbstractEventLoop, up: float) -> None:
        own = self._task
        while True:  # until `stop`
            await asyncio.sleep(max(self._rules.interval, LEAST_INTERVAL))
            began = loop.time() - up
            ok, detail = await self._check()
            self._state, became_unhealthy = judge(self._rules, self._state, ok, began)
            self._call(self._on_result, ok, detail)
            if became_unhealthy and self._task is own:
                self._call(self._on_unhealthy, detail)

    def _call(self, callback: Callable[..., object], *arguments: object) -> None:
        try:
            callback(*arguments)
        except Exception as error:
            log.unexpected("after a health check", error)

    async def _check(self) -> tuple[bool, str]:
        """One check: whether it succeeded, and why in words."""
        try:
            return await self._probe()
        except TimeoutError as error:
            if error.errno is not None:
                return False, f"{error.strerror}"
            return False, f"no answer within {self._rules.timeout:g} s"
        except OSError as error:
            return False, f"{error.strerror or error}"
        except (LcinitError, ValueError) as error:
            return False, str(error)
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or task.cancelling():
                raise
            return False, "the check was cancelled"
        except Exception as error:
            return False, f"{type(error).__name__}: {error}"

    async def _probe(self) -> tuple[bool, str]:
        rules = self._rules
        if rules.exec is not None:
            async with asyncio.timeout(rules.timeout):
                status = await self._run(rules.exec, rules.timeout)
            if status < 0:
                raise TimeoutError
            return status == 0, describe_status(status)
        if rules.tcp is not None:
            async with asyncio.timeout(rules.timeout):
                (await Stream.connect(*rules.tcp)).close()
            return True, "connected"
        if rules.http is not None:
            return await self._probe_http(rules.http)
        raise ValueError("there is nothing to check")

    async def _probe_http(self, url: str) -> tuple[bool, str]:
        exchange = Exchange(parse_url(url))
        try:
            async with asyncio.timeout(self._rules.timeout):
                result = await exchange.result()
            await exchange.take_rest()
        finally:
            exchange.close()
        return result


def _tell_failure(task: Task[None]) -> None:
    if not task.cancelled() and task.exception() is not None:
        log.unexpected("there are no more health checks", task.exception())

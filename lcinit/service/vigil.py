"""Looking after a service while it is up: its watchdog and its health check, and what their verdict is."""

from __future__ import annotations

from lcinit import log
from lcinit.service.notify import Watchdog

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    from lcinit.config.service_values import Service
    from lcinit.config.values import Command
    from lcinit.service.health import HealthChecker
    from lcinit.service.notifications import Notification
    from lcinit.supervisor.reaper import Status

    class Watched(Protocol):
        """The service's task."""

        @property
        def name(self) -> str:
            """The service's name."""

        async def check(self, command: Command, seconds: float) -> Status:
            """Run a health check's command."""

        def sick(self, result: str, why: str, *, stop: bool = False) -> None:
            """It is given up; with `stop` for good."""


class Vigil:
    """From `begin` to `end`, as often as the service is up."""

    def __init__(self, watched: Watched) -> None:
        self._watched = watched
        self._watchdog: Watchdog | None = None
        self._health: HealthChecker | None = None
        self._action = "none"

    def begin(self, service: Service) -> None:
        """It is up. Needs the running loop."""
        if service.watchdog is not None:
            self._watchdog = Watchdog(service.watchdog, self._expired)
            self._watchdog.start()
        self.change_health(service)

    def change_health(self, service: Service) -> None:
        """Check it in this way from now on."""
        self._end_health()
        rules = service.health
        if rules is not None:
            from lcinit.service.health import HealthChecker

            self._action = rules.action
            self._health = HealthChecker(rules, self._watched.check, self._checked, self._unhealthy)
            self._health.start()

    def end(self) -> None:
        """It is not up any more. Any number of times."""
        self._end_health()
        if self._watchdog is not None:
            self._watchdog.stop()
            self._watchdog = None

    def notified(self, said: Notification, *, up: bool) -> None:
        """What it says of its watchdog."""
        if self._watchdog is not None:
            if said.watchdog_usec is not None:
                self._watchdog.interval = said.watchdog_usec / 1_000_000
            if said.watchdog:
                self._watchdog.ping()
        if said.watchdog_trigger and up:
            self._watched.sick("watchdog", "it has asked for its watchdog's action")

    def _end_health(self) -> None:
        if self._health is not None:
            self._health.stop()
            self._health = None

    def _expired(self) -> None:
        interval = 0.0 if self._watchdog is None else self._watchdog.interval
        self._watched.sick("watchdog", f"no WATCHDOG=1 within {interval:g} s")

    def _checked(self, ok: bool, detail: str) -> None:
        if not ok:
            log.debug(f"{self._watched.name}: health check: {detail}")

    def _unhealthy(self, detail: str) -> None:
        shown = "" if self._action == "none" else f"; action {self._action}"
        log.warning(f"{self._watched.name} is not healthy: {detail}{shown}")
        if self._action != "none":
            self._watched.sick("health", f"its health check failed: {detail}", stop=self._action == "stop")

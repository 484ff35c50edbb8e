"""The commands of `shutdown.after`, which PID 1 runs in the boot root once a guest is gone."""

from __future__ import annotations

import asyncio

from lcinit import log
from lcinit.boot import commands, oom
from lcinit.errors import LcinitError
from lcinit.plan import steps as s

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.boot.world import World


async def run_after(world: World, seconds: float) -> None:
    """All of them, one after the other; one that fails is said, and the others still run.

    Together they have `seconds`, as the guest had to stop; cancelled or late, the one that runs is killed.
    """
    try:
        oom.give_back(world)
        async with asyncio.timeout(seconds):
            for index, command in enumerate(world.config.shutdown.after):
                step = s.RunCommand(
                    phase="exec", key=f"shutdown.after[{index}]", command=command, place="boot root", deadline=None
                )
                try:
                    await commands.run_command(world, step)
                except (LcinitError, OSError) as error:
                    log.error(str(error))
    except TimeoutError:
        log.error(f"shutdown.after took longer than {seconds:g} s and was ended")
    finally:
        oom.spare(world)

"""The runner: the steps of the plan in order. There is no other way in which a step is ever done."""

from __future__ import annotations

import errno
import os
import sys
import time

from lcinit import log
from lcinit.boot import cgroups, namespaces
from lcinit.errors import EX_CONFIG, LcinitError, SystemFailure
from lcinit.plan import steps as s
from lcinit.supervisor.dumping import forbid_dumping
from lcinit.supervisor.loop import loop_needed
from lcinit.supervisor.watch import SignalWatch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

    from lcinit.boot.helper import Helper
    from lcinit.boot.report import Report
    from lcinit.boot.world import World

    Do = Callable[[World, Any], None]

# What a step is done by, where it is one call in this process: a function of a module of this package, which is only
# imported for a plan with such a step. The others are methods of the runner; below are the modules that these use.
DO: dict[type[s.Step], str] = {
    s.UnshareMounts: "mounts.unshare_mounts",
    s.CoverInitramfs: "root.cover_initramfs",
    s.OpenConsole: "console.open_console",
    s.CheckRoot: "mounts.check_root",
    s.CheckInit: "guest.check_init",
    s.AttachRoot: "mounts.attach_root",
    s.MountNew: "mounts.mount_new",
    s.MakeTargets: "mounts.make_targets",
    s.SetReadOnly: "mounts.set_read_only",
    s.MaskPaths: "mounts.mask_paths",
    s.MakeNode: "devices.make_node",
    s.MakeLink: "devices.make_link",
    s.MakeInitctl: "devices.make_initctl",
    s.CopyDevices: "devices.copy_devices",
    s.ConsoleStep: "console.set_up_console",
    s.HostInfo: "hostinfo.host_info",
    s.ResolvConf: "hostinfo.resolv_conf",
    s.MountExtra: "extra.mount_extra",
    s.MountFstab: "extra.mount_fstab",
    s.TakeCgroup: "cgroups.take_cgroup",
    s.Unshare: "namespaces.unshare",
    s.SetHostname: "namespaces.set_hostname",
    s.LoopbackUp: "network.loopback_up",
    s.ChangeRoot: "root.change_root",
    s.DropCapabilities: "handoff.drop_capabilities",
    s.AnswerReboot: "handoff.answer_reboot",
}
USES: dict[type[s.Step], str] = {
    s.RunCommand: "commands",
    s.StartHelper: "helper",
    s.MoveInterfaces: "network",
    s.ExecInit: "handoff",
}


# A process that comes to one of these has done its part: what follows is another's.
SPLITS = (s.ForkBuilder, s.CloneLeader, s.KeepCommand)


def _resolve(future: Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def action(kind: type[s.Step]) -> Do:
    """The function that does a step of this kind; its module is imported."""
    module, name = DO[kind].split(".")
    function: Do = getattr(_module(module), name)
    return function


def _module(name: str) -> ModuleType:
    full_name = f"lcinit.boot.{name}"
    __import__(full_name)
    return sys.modules[full_name]


def _step_failure(step: s.Step, error: OSError) -> SystemFailure:
    refused = error.errno in (errno.EPERM, errno.EACCES)
    hint = "`lcinit doctor` tells what this container does not permit" if refused else ""
    return SystemFailure.from_os_error(f"{step.what()} ({step.phase})", error, hint=hint)


class Runner:
    """Runs one plan. Ends by exec, or by an LcinitError that says which step failed.

    All that its steps need is imported when it is made.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.leader = os.getpid()
        self.started = -1
        kinds = {type(step) for step in world.plan.steps}
        self._actions = {kind: action(kind) for kind in kinds if kind in DO}
        for kind in kinds & USES.keys():
            _module(USES[kind])

    async def run(self, first: int = 0) -> int:
        """The steps from `first` on; returns the number of the one where another process goes on (see SPLITS).

        Raises LcinitError for a step that failed, and for a stop request that came meanwhile.
        """
        try:
            number = await self._run(first)
            if self.world.watch is not None and self.world.watch.stopped_by is not None:
                raise self._stopped(self.world.watch)
            return number
        except BaseException as error:
            # asyncio is only imported by now if somebody could cancel
            if type(error).__name__ != "CancelledError" or self.world.watch is None:
                raise
            raise self._stopped(self.world.watch) from error
        finally:
            if self.world.watch is not None:
                self.world.watch.stop()

    def _stopped(self, watch: SignalWatch) -> LcinitError:
        number = 0 if watch.stopped_by is None else watch.stopped_by.signo
        return LcinitError(f"the boot was stopped by {watch.why()}", exit_code=128 + number)

    async def _run(self, first: int) -> int:
        world = self.world
        pending_commands = sum(isinstance(step, s.RunCommand) for step in world.plan.steps[first:])
        for number, step in enumerate(world.plan.steps):
            if number < first:
                continue
            if isinstance(step, SPLITS):
                return number
            begun = time.monotonic()
            if isinstance(step, s.RunCommand):
                pending_commands -= 1
            if isinstance(step, (s.Unshare, s.ChangeRoot)) and pending_commands:
                # nothing can be imported once the root has changed, and what is root's alone to read once the ids have
                await loop_needed()
                world.listen()
            try:
                await self._do(number, step)
            except OSError as error:
                raise _step_failure(step, error) from error
            spent = time.monotonic() - begun
            log.debug(f"{step.phase} {spent * 1000:7.3f} ms  {step.what()}")
            world.phase_seconds[step.phase] = world.phase_seconds.get(step.phase, 0.0) + spent
        raise AssertionError("a plan ends by exec")

    async def _do(self, number: int, step: s.Step) -> None:
        world = self.world
        if isinstance(step, s.RunCommand):
            if step.place == "outside":
                await self._ask_slowly(number)
            else:
                from lcinit.boot import commands

                await commands.run_command(world, step)
        elif isinstance(step, s.StartHelper):
            from lcinit.boot import helper

            forbid_dumping()
            world.helper = helper.start(self.perform, cgroups.make_keeper_cgroup(world))
        elif isinstance(step, s.WriteIdMap):
            self._helper().ask(number)
            namespaces.become_root(world)
        elif isinstance(step, s.MoveInterfaces):
            handed = [os.open(f"/proc/self/ns/{kind}", os.O_RDONLY | os.O_CLOEXEC) for kind in ("net", "user")]
            try:
                self._helper().ask(number, tuple(handed))
            finally:
                for fd in handed:
                    os.close(fd)
        elif isinstance(step, s.ExecInit):
            self._heed_stop_request()
            self._release_helper(number)
            log.info(self._summary(step))
            from lcinit.boot import handoff

            handoff.hand_off(world, step)
        else:
            self._actions[type(step)](world, step)

    def _heed_stop_request(self) -> None:
        """The last chance: the guest's init would never learn of a signal that came before its exec."""
        watch = self.world.watch = self.world.watch or SignalWatch(self.world.reaper)
        watch.look()
        if watch.stopped_by is not None:
            raise self._stopped(watch)

    def _helper(self) -> Helper:
        if self.world.helper is None:
            raise SystemFailure("this step needs the helper, and the plan has none", exit_code=EX_CONFIG)
        return self.world.helper

    async def _ask_slowly(self, number: int) -> None:
        """A request that may take long: wait on the loop, so that signals are taken meanwhile."""
        await loop_needed()
        self.world.listen()
        import asyncio

        assistant = self._helper()
        assistant.send(number)
        loop = asyncio.get_running_loop()
        ready = loop.create_future()
        loop.add_reader(assistant.channel.fileno(), _resolve, ready)
        try:
            await ready
        finally:
            loop.remove_reader(assistant.channel.fileno())
        assistant.answer()

    def _release_helper(self, number: int) -> None:
        """Turn the helper into the keeper where the guest needs one, and end it otherwise."""
        world = self.world
        if world.helper is None:
            return
        if world.report is not None:
            self._hand_to_supervisor(world.report)
            return
        if not world.keeper_needed:
            world.helper.close()
            world.reaper.forget(world.helper.pid)
            return
        from lcinit.boot import handoff

        handoff.spare_keeper(world, world.helper.pid)
        reader, self.started = os.pipe2(os.O_CLOEXEC)
        handed = [reader, *(fd for fd in (world.reboot_calls, world.console_master) if fd >= 0)]
        world.helper.send(number, tuple(handed))
        for fd in handed:
            os.close(fd)
        world.helper.wait_for_exec()

    def _hand_to_supervisor(self, report: Report) -> None:
        """What PID 1 needs of a guest that it stays for: its root, and its console where that is a pty."""
        world = self.world
        report.say("init", init=world.init_kind, phases=dict(world.phase_seconds))
        report.say("root", descriptors=(world.root_fd,))
        if world.console_master >= 0:
            report.say("console", descriptors=(world.console_master,))
            os.close(world.console_master)
            world.console_master = -1

    def perform(self, number: int, descriptors: list[int]) -> None:
        """In the helper: the part of a step that is done outside. Raises LcinitError, as in the leader."""
        step = self.world.plan.steps[number]
        try:
            self._do_outside(step, descriptors)
        except OSError as error:
            raise _step_failure(step, error) from error

    def _do_outside(self, step: s.Step, descriptors: list[int]) -> None:
        if isinstance(step, s.WriteIdMap):
            namespaces.write_id_map(step, self.leader)
        elif isinstance(step, s.MoveInterfaces):
            from lcinit.boot import network

            network.move_interfaces(step.names, *descriptors)
        elif isinstance(step, s.RunCommand):
            from lcinit.boot import commands

            commands.run_outside(self.world, step, self.leader)
        elif isinstance(step, s.ExecInit):
            from lcinit.boot import handoff

            answers = handoff.reboot_step(self.world) is not None
            names = ["started"] + ["reboot-calls"] * answers + ["console"]
            named = dict(zip(names, descriptors, strict=False))  # the console only where there is one to relay
            if self.world.initctl_directory >= 0:
                named["initctl"] = self.world.initctl_directory
            handoff.become_keeper(self.world, step, named)
        else:
            raise LcinitError(f"the helper was asked for {step.kind}, which is not its work")

    def _summary(self, step: s.ExecInit) -> str:
        times = ", ".join(f"{name} {seconds * 1000:.0f} ms" for name, seconds in self.world.phase_seconds.items())
        return f"{times}; {step.what()}"

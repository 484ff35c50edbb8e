"""What other supervisors call the keys of a service: for who writes one of their words out of habit.

Words are compared without case, hyphens and underscores: `StopTimeout`, `stop_timeout` and `stop-timeout` are one.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Final


def folded(word: str) -> str:
    """A word as it is compared."""
    return word.replace("_", "").replace("-", "").lower()


def _words(**of_keys: str) -> Mapping[str, str]:
    return {word: key for key, words in of_keys.items() for word in words.split()}


def _within(key: str, words: str) -> Mapping[str, str]:
    """Words for keys of a mapping: each is WORD=KEY."""
    pairs = (each.split("=") for each in words.split())
    return {word: f"{key}: {{{inner}: …}}" for word, inner in pairs}


OF_SERVICES: Final[Mapping[str, str]] = {
    **_words(
        # systemd, supervisord, s6, and the files of docker compose
        command="execstart cmd entrypoint exec run program",
        type="servicetype",
        notify_fd="notificationfd",
        requires="requisite bindsto dependencies dependson depends needs",
        start_after="after",
        start_before="before",
        runlevels="wantedby autostart",
        start_pre="execstartpre execstartprepre prestart up",
        start_post="execstartpost poststart",
        stop="execstop down",
        stop_post="execstoppost poststop finish",
        reload="execreload",
        start_timeout="timeoutstart timeoutstartsec timeoutup timeout timeoutsec",
        stop_timeout="timeoutstop timeoutstopsec timeoutkill timeoutdown stopwaitsecs stopgraceperiod killtimeout",
        stop_signal="killsignal downsignal",
        kill_mode="killasgroup stopasgroup",
        restart="autorestart restartpolicy",
        restart_delay="restartsec",
        restart_max_delay="restartmaxdelaysec",
        start_limit_burst="startretries",
        start_limit_interval="startlimitintervalsec",
        success_exit_status="exitcodes successcodes",
        essential="failureaction successaction",
        watchdog="watchdogsec",
        health="healthcheck",
        groups="supplementarygroups groupadd",
        cwd="workingdirectory workingdir workdir directory chdir dir",
        environment="env",
        environment_file="envfile",
        capabilities="capabilityboundingset ambientcapabilities capadd",
        read_only_paths="readonlydirectories readonly",
        tty="ttypath standardinput",
        log="standardoutput standarderror stdout stderr stdoutlogfile stderrlogfile logfile logging",
    ),
    **_within(
        "limits",
        "limitas=as limitcore=core limitcpu=cpu limitdata=data limitfsize=fsize limitlocks=locks limitmemlock=memlock "
        "limitmsgqueue=msgqueue limitnice=nice limitnofile=nofile limitnproc=nproc limitrss=rss limitrtprio=rtprio "
        "limitrttime=rttime limitsigpending=sigpending limitstack=stack",
    ),
    **_within(
        "cgroup",
        "memorymax=memory_max memorylimit=memory_max memlimit=memory_max memoryhigh=memory_high cpuquota=cpu_max "
        "cpus=cpu_max cpumax=cpu_max cpuweight=cpu_weight cpushares=cpu_weight tasksmax=pids_max pidsmax=pids_max "
        "pidslimit=pids_max",
    ),
    **_within(
        "log",
        "stdoutlogfilemaxbytes=max_size stdoutlogfilebackups=max_files logratelimitburst=rate_limit_burst "
        "logratelimitintervalsec=rate_limit_interval",
    ),
}
"""Each folded word, and what we write for it."""


def meant(word: str, keys: Iterable[str], others: Mapping[str, str]) -> str:
    """What to write for a word that is a key in another spelling, or a word of others; empty where it is neither."""
    own = {folded(key): key for key in keys}
    return own.get(folded(word)) or others.get(folded(word), "")

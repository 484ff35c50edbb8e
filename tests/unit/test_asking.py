"""When and how a guest's init is asked: time and hearing are arguments."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from lcinit.control.stopping import PATIENCE, REPEATS, SEND_INTERVAL
from lcinit.guest.asking import SETTLED, Act, Asking
from lcinit.plan.inits import INITS, WORDS, recipes, stop_signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from lcinit.guest.asking import Hearing, How


def never(_: float) -> Hearing:
    return "never"


def not_yet(_: float) -> Hearing:
    return "not-yet"


def yes(_: float) -> Hearing:
    return "yes"


def asking(kind: str = "systemd", *, plain: bool = False, blind: bool = False, born: float = 0.0) -> Asking:
    return Asking(recipes(kind, ()), blind=blind, plain=plain, born=born)


def run(
    subject: Asking, hears: Callable[[float], Hearing], end: float = 100.0, start: float = 0.0
) -> list[tuple[float, Act]]:
    """Step whenever something is due, until nothing is or `end`."""
    done = []

    def at(now: float) -> Callable[[str], Hearing]:
        return lambda _word: hears(now)

    while subject.due is not None and subject.due <= end:
        now = max(start, subject.due)
        act = subject.step(now, at(now))
        if act is not None:
            done.append((now, act))
    return done


def test_an_init_that_hears_is_asked_at_once_and_once() -> None:
    subject = asking()
    assert subject.ask("poweroff", 5.0)
    assert run(subject, yes, start=5.0) == [(5.0, Act(word="poweroff", how="do"))]
    assert subject.asked == "poweroff"


def test_the_same_word_again_changes_nothing_another_one_is_a_new_request() -> None:
    subject = asking()
    subject.ask("poweroff", 0.0)
    run(subject, yes)
    assert subject.ask("poweroff", 1.0)
    assert subject.due is None
    assert subject.ask("reboot", 1.1)
    assert run(subject, yes, start=1.1) == [(1.1, Act(word="reboot", how="do"))]
    # and back: the last word counts
    subject.ask("poweroff", 1.2)
    ((when, act),) = run(subject, yes, start=1.2)
    assert act == Act(word="poweroff", how="do")
    assert when >= 1.1 + SEND_INTERVAL


def test_a_second_word_replaces_one_that_is_held_and_the_first_one_may_come_back() -> None:
    subject = asking()
    subject.ask("poweroff", 0.0)
    assert subject.step(0.0, lambda _: "not-yet") is None
    subject.ask("halt", 0.1)
    subject.ask("poweroff", 0.2)
    ((_, act),) = run(subject, lambda now: "yes" if now > 2 else "not-yet", start=0.2)
    assert act.word == "poweroff"


def test_a_word_that_was_asked_takes_back_another_that_is_still_held() -> None:
    subject = asking()
    subject.ask("poweroff", 0.0)
    run(subject, yes)
    subject.ask("reboot", 2.0)
    subject.ask("poweroff", 2.0)
    assert run(subject, yes, start=2.0) == []
    assert subject.asked == "poweroff"


@pytest.mark.parametrize("after", [0.003, 0.2, 3.0])
def test_a_request_is_held_until_the_init_hears(after: float) -> None:
    subject = asking("sysvinit")
    subject.ask("halt", 0.0)
    ((when, act),) = run(subject, lambda now: "yes" if now >= after else "not-yet")
    assert act == Act(word="halt", how="do")
    assert after <= when <= 2 * after + 0.3


def test_a_signal_is_sent_all_the_same_when_patience_ends_and_a_fifo_left_for_the_fallback() -> None:
    expected: tuple[tuple[str, How], ...] = (("systemd", "do"), ("runit", "do"), ("sysvinit", "fall-back"))
    for kind, how in expected:
        subject = asking(kind)
        subject.ask("reboot", 0.0)
        ((when, act),) = run(subject, not_yet)
        assert act == Act(word="reboot", how=how, unheard=True)
        assert PATIENCE <= when <= PATIENCE + 0.5


def test_what_is_no_fifo_is_given_up_at_once() -> None:
    subject = asking("sysvinit")
    subject.ask("poweroff", 0.0)
    assert run(subject, never) == [(0.0, Act(word="poweroff", how="fall-back", unheard=True))]


def test_a_blind_init_is_told_again_and_not_for_ever() -> None:
    subject = asking("busybox", blind=True)
    subject.ask("poweroff", 0.0)
    done = run(subject, not_yet, end=1000)
    assert [act.how for _, act in done] == ["do", *["again"] * len(REPEATS)]
    assert done[0][0] == 0.0


def test_a_program_without_a_handler_is_deaf_once_it_has_settled() -> None:
    old = asking("plain", plain=True, born=0.0)
    old.ask("poweroff", 50.0)
    assert run(old, not_yet, start=50.0) == [(50.0, Act(word="poweroff", how="deaf", unheard=True))]
    young = asking("plain", plain=True, born=0.0)
    young.ask("poweroff", 0.1)
    ((when, act),) = run(young, not_yet, start=0.1)
    assert act.how == "deaf"
    assert SETTLED <= when <= SETTLED + 0.5
    trapping = asking("plain", plain=True, born=0.0)
    trapping.ask("reboot", 0.0)
    ((_, act),) = run(trapping, lambda now: "yes" if now > 0.1 else "not-yet")
    assert act == Act(word="reboot", how="do")


def test_a_word_that_the_init_does_not_have_is_refused() -> None:
    assert not asking().ask("sing", 0.0)


@pytest.mark.parametrize("kind", sorted(INITS))
def test_every_init_has_all_three_words_and_each_ends_with_something_to_do(kind: str) -> None:
    known = recipes(kind, ())
    assert sorted(known) == sorted(WORDS)
    for recipe in known.values():
        assert (recipe.signal is not None) != bool(recipe.fifos)
        assert bool(recipe.fifos) == bool(recipe.runlevel or recipe.text)


def test_the_users_signals_win() -> None:
    known = recipes("runit", (("poweroff", "SIGUSR1"),))
    assert (known["poweroff"].signal, known["poweroff"].flags) == ("SIGUSR1", ())
    assert known["reboot"].flags
    assert stop_signals("sysvinit", (("halt", "SIGUSR2"),)) == {"reboot": "SIGINT", "halt": "SIGUSR2"}


def test_a_command_is_always_ended_by_the_signal_that_the_user_named() -> None:
    known = recipes("plain", (("poweroff", "SIGQUIT"),))
    assert [known[word].signal for word in WORDS] == ["SIGQUIT"] * 3
    known = recipes("plain", (("poweroff", "SIGQUIT"), ("reboot", "SIGHUP")))
    assert [known[word].signal for word in WORDS] == ["SIGQUIT", "SIGQUIT", "SIGHUP"]
    assert recipes("systemd", (("poweroff", "SIGUSR1"),))["reboot"].signal == "SIGRTMIN+5"


def test_who_can_only_signal_gets_the_fallback() -> None:
    assert stop_signals("openrc-init", ()) == {"poweroff": "SIGTERM", "halt": "SIGTERM", "reboot": "SIGINT"}
    assert stop_signals("plain", ()) == {"poweroff": "SIGTERM", "halt": "SIGTERM"}

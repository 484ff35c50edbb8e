"""asyncio and json without what PID 1 never uses of them, each in an interpreter of its own."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import lcinit


def _runs(name: str) -> bool:
    """Whether there is such an interpreter, and not only a name that would find one."""
    try:
        return subprocess.run([name, "-c", ""], capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False


PACKAGE = Path(lcinit.__file__).parent
VERSIONS = [f"python3.{minor}" for minor in range(11, 20)]
INTERPRETERS = [sys.executable, *filter(_runs, VERSIONS)]
START = f"import sys; sys.path.append({str(PACKAGE.parent)!r}); from lcinit.supervisor import lean\n"


def run(code: str, *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-I", "-S", *options, "-c", START + code]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)


def said(code: str) -> str:
    done = run(code)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


LOOP = """
async def wait():
    try:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()
    except TimeoutError:
        return "over"
loop = asyncio.new_event_loop()
print(loop.run_until_complete(wait()))
loop.close()
"""


def test_a_loop_runs_without_them() -> None:
    before = "before = set(sys.modules)\n"  # Python 3.13 itself imports linecache for -c
    code = f"{before}asyncio = lean.import_asyncio()" + LOOP + "print(*sorted(set(sys.modules) - before))"
    over, modules = said(code).splitlines()
    assert over == "over"
    left_out = {
        "concurrent",
        "enum",
        "inspect",
        "linecache",
        "logging",
        "re",
        "signal",
        "socket",
        "ssl",
        "subprocess",
    }
    left_out |= {"threading", "traceback", "typing", "asyncio.streams"}
    assert not left_out & set(modules.split())


def test_it_has_every_name_that_lcinit_takes_from_it() -> None:
    text = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    names = set(re.findall(r"\basyncio\.([A-Za-z]\w+)", text))
    for imported in re.findall(r"from asyncio import ([^#\n]+)", text):
        names |= {name.strip() for name in imported.split(",")}
    assert {"timeout", "Future", "get_running_loop"} <= names
    known = said("asyncio = lean.import_asyncio()\nprint(*dir(asyncio))").split()
    assert names - {"events"} <= set(known)


def test_what_was_left_out_is_had_when_it_is_asked_for() -> None:
    code = """
asyncio = lean.import_asyncio()
print(asyncio.streams.StreamReader.__name__, asyncio.coroutines.inspect.signature(len), "inspect" in sys.modules)
import typing, traceback, logging, subprocess
print(typing.Optional[int], logging.getLogger("x").name, subprocess.Popen.__name__)
loop = asyncio.new_event_loop()
loop.set_debug(True)
loop.call_soon(loop.stop)
loop.run_forever()
print(asyncio.base_events.subprocess.list2cmdline(["a b"]))
loop.close()
"""
    assert said(code).splitlines() == ["StreamReader (obj, /) True", "typing.Optional[int] x Popen", '"a b"']


def test_mistakes_on_the_loop_need_no_import() -> None:
    code = """
import functools, gc
from lcinit.boot import guard
from lcinit.supervisor import loop as loops
asyncio = loops.import_loop()
loop = loops.new_loop()
def fail(*_):
    raise ValueError("unforeseen")
async def fail_later():
    fail()
async def body():
    loop.call_soon(fail)
    loop.call_soon(functools.partial(fail, 1))
    loop.call_later(0.001, fail)
    task = asyncio.ensure_future(fail_later())
    future = loop.create_future()
    future.add_done_callback(fail)
    assert "fail" in repr([task, future, loop.call_later(9, fail)])
    future.set_result(None)
    await asyncio.wait([task, loop.create_future()], timeout=0.05)
    del task
    gc.collect()
    try:
        await asyncio.wait_for(loop.create_future(), 0.01)
    except TimeoutError:
        print("alive")
guard.close()
loop.run_until_complete(body())
"""
    for options in ((), ("-X", "dev")):
        done = run(code, *options)
        assert (done.returncode, done.stdout) == (0, "alive\n"), done
        lines = done.stderr.splitlines()
        assert len(lines) == 5
        assert all("unexpected, on the event loop" in line and "ValueError: unforeseen" in line for line in lines)


USES = """
from lcinit.boot import guard
from lcinit.supervisor import loop as loops
asyncio = loops.import_loop()
loop = loops.new_loop()
async def within(seconds):
    async with asyncio.timeout(seconds):
        await loop.create_future()
async def body():
    lock, event = asyncio.Lock(), asyncio.Event()
    loop.call_later(0.001, event.set)
    async with lock:
        await asyncio.sleep(0.001)
        await asyncio.sleep(0)
        await event.wait()
    for late in (within(0.001), asyncio.wait_for(loop.create_future(), 0.001)):
        try:
            await late
        except TimeoutError:
            pass
    task = loop.create_task(within(9))
    await asyncio.wait([task], timeout=0.001)
    await asyncio.wait([task, loop.create_task(asyncio.sleep(0))], return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(asyncio.sleep(0), asyncio.shield(asyncio.sleep(0)))
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        assert task.cancelled() and "cancelled" in repr(task)
    import os
    reader, writer = os.pipe()
    ready = loop.create_future()
    loop.add_reader(reader, lambda: ready.done() or ready.set_result(os.read(reader, 9)))
    loop.add_writer(writer, lambda: loop.remove_writer(writer) and os.write(writer, b"x"))
    assert await ready == b"x"
    loop.remove_reader(reader)
    loop.call_soon_threadsafe(print, "all", asyncio.current_task().get_name() != "")
    await asyncio.sleep(0.001)
guard.close()
loop.run_until_complete(body())
loop.close()
"""


@pytest.mark.parametrize("interpreter", INTERPRETERS)
def test_what_lcinit_does_with_a_loop_needs_no_import(interpreter: str) -> None:
    argv = [interpreter, "-I", "-S", "-B", "-c", START + USES]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "all True\n", "")


def test_what_it_says_goes_to_the_log() -> None:
    done = run("asyncio = lean.import_asyncio()\nasyncio.log.logger.warning('%s took %d', 'it', 3)")
    assert "event loop: it took 3" in done.stderr


@pytest.mark.parametrize("missing", ["logging", "subprocess", "traceback"])
def test_an_asyncio_that_wants_more_is_imported_as_it_is(missing: str) -> None:
    code = f"""
around = lean._around_asyncio
class Poor(lean._StandIn):
    def __getattr__(self, attribute):
        raise AttributeError(attribute)
lean._around_asyncio = lambda: around() | {{{missing!r}: Poor({missing!r})}}
asyncio = lean.import_asyncio()
print({missing!r} in sys.modules, type(sys.modules.get({missing!r})).__name__)
"""
    assert said(code + LOOP).splitlines() == ["True module", "over"]


VALUES = ["[]", ' {"a": [1, -2.5e3, true, null, "x\\u00e4\\n"]} \n', "\t0", '"é"']


def test_json_is_the_same_without_regular_expressions() -> None:
    code = f"""
json = lean.import_json()
for text in {VALUES!r}:
    print(json.dumps(json.loads(text)))
print("re" in sys.modules)
"""
    assert said(code).splitlines() == [*(json.dumps(json.loads(text)) for text in VALUES), "False"]


@pytest.mark.parametrize("text", ["", "[1", '{"a" 1}', "x", "[] []", '"\n"'])
def test_json_refuses_the_same_with_the_same_words(text: str) -> None:
    code = f"""
json = lean.import_json()
try:
    json.loads({text!r})
except ValueError as error:
    print(type(error).__name__, error)
"""
    with pytest.raises(json.JSONDecodeError) as refused:
        json.loads(text)
    assert said(code) == f"JSONDecodeError {refused.value}\n"


def test_a_json_without_its_c_part_is_imported_as_it_is() -> None:
    code = """
sys.modules["_json"] = None
json = lean.import_json()
print(json.loads('{"a": [1.5, "x"]}'), json.dumps({"a": "é"}), "re" in sys.modules)
"""
    assert said(code) == "{'a': [1.5, 'x']} {\"a\": \"\\u00e9\"} True\n"

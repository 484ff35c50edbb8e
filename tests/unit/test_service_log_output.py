"""The end of an output whose pipe is filled again and again."""

from __future__ import annotations

import os
import select

from lcinit.config.service_values import ServiceLog
from lcinit.service.log_console import Console
from lcinit.service.log_output import Output
from lcinit.service.log_source import Glance, Source


class Refilled(Source):
    """Whatever is taken from it is there again."""

    writer = -1

    def skip(self, most: int) -> tuple[int, int]:
        taken = super().skip(most)
        os.write(self.writer, b"again\n")
        return taken


def test_only_what_was_there_is_waited_for() -> None:
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    source = Refilled(reader, Glance())
    source.writer = writer
    output = Output("web", ServiceLog(to="none"), source, Console(-1, select.epoll(), -1), lambda: False)
    os.write(writer, b"first\n")
    output.take_waiting()
    assert source.waiting() == len(b"again\n")
    output.finish()
    os.close(writer)

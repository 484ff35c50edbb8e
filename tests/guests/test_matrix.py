"""Every guest, every end and every way to ask for it: the real lcinit, the real init, the right outcome.

The outcomes are the table in docs/guests.md. To write it anew:

    LCINIT_WRITE_DOCS=1 python -m pytest tests/guests/test_matrix.py
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.guests import matrix
from tests.lab.guests import guest
from tests.namespace.isolated import needs_root

pytestmark = needs_root

AT_ONCE = 3  # containers beside each other: most of their time is spent asleep


@pytest.mark.parametrize("name", list(matrix.CASES))
def test_every_end_in_every_way(name: str, boot_root: str) -> None:
    case = matrix.CASES[name]
    guest(case.guest)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        running = [pool.submit(job, case, boot_root) for job in matrix.jobs()]
    outcomes = {key: outcome for each in running for key, outcome in each.result().items()}
    assert outcomes == {(word, way): matrix.expected(case, word) for word in matrix.WORDS for way in matrix.WAYS}
    line = matrix.row(name, outcomes)
    if os.environ.get("LCINIT_WRITE_DOCS"):
        matrix.document(name, line)
    assert matrix.documented()[name] == line, "docs/guests.md says otherwise; see the top of this file"


def test_the_table_has_every_guest_and_no_other() -> None:
    assert list(matrix.documented()) == list(matrix.CASES)

"""`python -m lcinit`."""

from __future__ import annotations

import sys

from lcinit.cli.main import main

sys.exit(main(sys.argv))

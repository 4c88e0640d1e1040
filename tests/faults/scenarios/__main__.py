"""All scenarios: `python -m tests.faults.scenarios`; `-k torn` and the like go to pytest."""

from __future__ import annotations

import sys

import pytest

from tests.faults.scenarios.catalogue import HERE

sys.exit(pytest.main([str(HERE), *sys.argv[1:]]))

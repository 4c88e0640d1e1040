"""All groups, in the order in which they are printed."""

from __future__ import annotations

from . import arrival, calls, crowd, dry, memory, reading, starting

GROUPS = (*calls.GROUPS, *arrival.GROUPS, *dry.GROUPS, *crowd.GROUPS, *reading.GROUPS, *starting.GROUPS, *memory.GROUPS)

"""`python -m reconciler` is the command `reconciler`."""

from __future__ import annotations

import sys

from .cli import main

sys.exit(main())

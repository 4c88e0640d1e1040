"""The catalogue is whole: what it does not show, nobody will find."""

from __future__ import annotations

import re

from tests.faults.scenarios.catalogue import HERE, catalogue


def test_every_scenario_is_in_the_catalogue_with_a_line_of_its_own() -> None:
    """One whole sentence of what happens and what holds, beside the link to the file; no two the same."""
    found = catalogue()
    assert {one.link.rpartition("/")[2] for one in found} == {path.name for path in HERE.glob("test_*.py")}
    assert [one.name for one in found if not re.fullmatch(r"[A-Z`].{30,}[.]", one.line)] == []
    assert len({one.line for one in found}) == len(found)

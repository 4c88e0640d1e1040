"""`context.json` taken apart at the places where it is edited, so that one change need not parse it all again.

A file of 10,000 agents is one text of 6 MB; the record that changed is one piece of it. Whatever is more than
a new value in a known place or one more agent (an agent that goes, a new section) is left to `context_file.render`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ..edits import FILE
from ..plan import Change
from ..state import SHARED, NotJson, State, decode_at, encode, members, skip_blank
from .context_file import Context, Edit, edit_value, file_edits, plain_text, read_record, style_of

Place = tuple[str, str]
"""`("", section)` or `("agents", agent)`."""


class Pieces:
    """A text as pieces, and which of them is the value of what."""

    def __init__(self, text: str) -> None:
        self.style = style_of(text, start := skip_blank(text, 0))
        self.parts: list[str] = []
        self.places: dict[Place, int] = {}
        self._text, self._end = text, 0
        self._lead, self._last = "", -1
        for member in members(text, start):
            if member.key != "agents":
                self._cut(("", member.key), member.start, member.end)
                continue
            for record in members(text, member.start):
                if self._last < 0:
                    self._lead = text[member.start + 1 : record.key_start]
                self._cut(("agents", record.key), record.start, record.end)
                self._last = len(self.parts) - 1
        self.parts.append(text[self._end :])
        del self._text

    def _cut(self, place: Place, start: int, end: int) -> None:
        self.parts += (self._text[self._end : start], self._text[start:end])
        self.places[place] = len(self.parts) - 1
        self._end = end

    def edit(self, edits: Mapping[str, Edit]) -> dict[Place, str] | None:
        """The new values of the edited places, new agents' records too; None if any of it is more than that."""
        inner = self.style.newline + self.style.step
        found: dict[Place, str] = {}
        wanted = [(("", name), edit, inner) for name, edit in edits.items() if name != "agents"]
        records = edits.get("agents") or {}
        assert not isinstance(records, str)
        wanted += [(("agents", name), edit, inner + self.style.step) for name, edit in records.items()]
        for place, edit, margin in wanted:
            known = place in self.places
            if edit is None or not (known or (place[0] and self._last >= 0)):
                return None
            found[place] = edit_value(self.parts[self.places[place]] if known else "{}", edit, self.style, margin)
        return found

    def compare(self, text: str) -> dict[Place, str] | None:
        """The values that another version of the text has in these places; None where more than values differ.

        Raises NotJson.
        """
        names = {index: place for place, index in self.places.items()}
        found: dict[Place, str] = {}
        position = 0
        for index, piece in enumerate(self.parts):
            end = position + len(piece)
            place = names.get(index)
            if not text.startswith(piece, position) or (place and not text.startswith(self.parts[index + 1], end)):
                if place is None:
                    return None
                _, end = decode_at(text, position)
                found[place] = text[position:end]
            position = end
        return found if position == len(text) else None

    def put(self, values: Mapping[Place, str]) -> None:
        """Put new values into their places."""
        for place, text in values.items():
            if place not in self.places:
                self._add(place)
            self.parts[self.places[place]] = text

    def text(self) -> str:
        return "".join(self.parts)

    def _add(self, place: Place) -> None:
        """Room for a new record behind the last one."""
        end = self._last + 1
        self.places = {known: index + 2 * (index >= end) for known, index in self.places.items()}
        gap = "," + (self._lead or self.style.comma) + encode(place[1]) + self.style.colon
        self.parts[end:end] = [gap, ""]
        self.places[place] = self._last = end + 1


class Draft:
    """One reading of the file that follows the writes made to it. Once it is in pieces its text is put together only
    when it is asked for: an edit costs the same however large the file is."""

    def __init__(self, context: Context) -> None:
        self._values = dict(context.values)
        self._context = replace(context, values=self._values)
        self._pieces: Pieces | None = None

    @property
    def context(self) -> Context:
        return self._context if self._pieces is None else replace(self._context, text=self._pieces.text())

    @property
    def values(self) -> Mapping[str, Mapping[str, str]]:
        return self._values

    @property
    def broken(self) -> frozenset[str]:
        return self._context.broken

    def _cut(self) -> Pieces | None:
        """In pieces; None where only the long way tells."""
        if self._context.problems or self._context.legacy:
            return None
        if self._pieces is None:
            self._pieces = Pieces(self._context.text)
            self._context = replace(self._context, text="")
        return self._pieces

    def edited(self, changes: Mapping[str, Mapping[str, Change]], merged: State, last_update: str) -> bool:
        """Make the changes; False when only the long way tells (`context_file.render`, and parse)."""
        pieces = self._cut()
        if pieces is None:
            return False
        return self._take(pieces, pieces.edit(file_edits(self._context, changes, merged, last_update))) is not None

    def follow(self, text: str) -> frozenset[str] | None:
        """Take in a version that somebody else wrote; the agents whose records are other ones, with SHARED and FILE
        for what the file says itself. None when only the long way tells; then this draft is of no use any more."""
        pieces = self._cut()
        try:
            return None if pieces is None else self._take(pieces, pieces.compare(text))
        except NotJson:
            return None

    def _take(self, pieces: Pieces, found: Mapping[Place, str] | None) -> frozenset[str] | None:
        """Put these in, where they are new values and nothing more; the records that are other ones, None if not."""
        new = self._new(found) if found is not None else None
        if found is None or new is None:
            return None
        pieces.put(found)
        self._values.update(new)
        return frozenset(new)

    def _new(self, found: Mapping[Place, str]) -> dict[str, Mapping[str, str]] | None:
        """The records with new values in these places; None where one is not as a record should be."""
        known, values = self._values, dict[str, Mapping[str, str]]()
        for (inside, name), text in found.items():
            if inside:
                record = read_record(name, text)
                if record is None:
                    return None
                values[name] = record
                continue
            owner = next((owner for owner in (FILE, SHARED) if name in known.get(owner, {})), None)
            if owner is not None:  # else it describes this machine
                values[owner] = {**values.get(owner, known[owner]), name: plain_text(text)}
        return values

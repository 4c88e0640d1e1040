"""`context.json` taken apart at the places where it is edited, so that one change need not parse it all again.

A file of 10,000 agents is one text of 6 MB; the record that changed is one piece of it. Whatever is more than
a new value in a known place or one more agent (an agent that goes, a new section) is left to `context_file.render`.
"""

from __future__ import annotations

from array import array
from codecs import BOM_UTF8
from collections.abc import Iterable, Iterator, KeysView, Mapping
from dataclasses import replace
from itertools import islice, pairwise
from sys import intern

from ..edits import FILE
from ..plan import Change
from ..state import SHARED, Member, NotJson, State, check_depth, decode_at, encode, members, skip_blank
from .context_file import Context, Edit, edit_value, file_edits, plain_text, read_record, style_of

Place = tuple[str, str]
"""`("", section)` or `("agents", agent)`."""
BLOCK = 100
"""Records in one text: an edit moves those behind it."""


class _Block:
    """Values that stand one behind the other, each with what stands before it, as one text."""

    __slots__ = ("ends", "starts", "text")

    def __init__(self, text: str, starts: Iterable[int] = (), ends: Iterable[int] = ()) -> None:
        self.text, self.starts, self.ends = text, array("I", starts), array("I", ends)

    def gap(self, slot: int) -> str:
        """What stands before a value."""
        return self.text[self.ends[slot - 1] if slot else 0 : self.starts[slot]]

    def value(self, slot: int) -> str:
        return self.text[self.starts[slot] : self.ends[slot]]

    def put(self, slot: int, value: str) -> None:
        start, end = self.starts[slot], self.ends[slot]
        self.text = self.text[:start] + value + self.text[end:]
        longer = len(value) - (end - start)
        self.ends[slot] += longer
        for later in range(slot + 1, len(self.starts)):
            self.starts[later] += longer
            self.ends[later] += longer

    def append(self, gap: str, value: str) -> None:
        self.starts.append(len(self.text) + len(gap))
        self.text += gap + value
        self.ends.append(len(self.text))


class Pieces:
    """A text as blocks, and where in them each value stands. A block has values of one kind: a section, or records.

    Few large texts and numbers: an object for each record would cost as much memory again as the record, and keep what
    lies around it from being given back.
    """

    def __init__(self, text: str) -> None:
        self.style = style_of(text, start := skip_blank(text, 0))
        self._blocks: list[_Block] = []
        self._places: dict[str, dict[str, int]] = {"": {}, "agents": {}}
        """A block's number times BLOCK, and the slot in it."""
        self._lead, self._last, self._end = "", -1, 0
        for member in members(text, start):
            if member.key != "agents":
                self._cut(text, "", [member])
                continue
            records = members(text, member.start)
            while some := list(islice(records, BLOCK)):
                if self._last < 0:
                    self._lead = text[member.start + 1 : some[0].key_start]
                self._cut(text, "agents", some)
                self._last = len(self._blocks) - 1
        self._tail = text[self._end :]

    def _cut(self, text: str, inside: str, found: list[Member]) -> None:
        first, self._end = self._end, found[-1].end
        place = len(self._blocks) * BLOCK
        starts, ends = (member.start - first for member in found), (member.end - first for member in found)
        self._blocks.append(_Block(text[first : self._end], starts, ends))
        self._places[inside].update((intern(member.key), place + slot) for slot, member in enumerate(found))

    @property
    def records(self) -> KeysView[str]:
        return self._places["agents"].keys()

    def value(self, inside: str, name: str) -> str:
        number, slot = divmod(self._places[inside][name], BLOCK)
        return self._blocks[number].value(slot)

    def edit(self, edits: Mapping[str, Edit]) -> dict[Place, str] | None:
        """The new values of the edited places, new agents' records too; None if any of it is more than that."""
        inner = self.style.newline + self.style.step
        found: dict[Place, str] = {}
        wanted = [(("", name), edit, inner) for name, edit in edits.items() if name != "agents"]
        records = edits.get("agents") or {}
        assert not isinstance(records, str)
        wanted += [(("agents", name), edit, inner + self.style.step) for name, edit in records.items()]
        for (inside, name), edit, margin in wanted:
            known = name in self._places[inside]
            if edit is None or not (known or (inside and self._last >= 0)):
                return None
            found[inside, name] = edit_value(self.value(inside, name) if known else "{}", edit, self.style, margin)
        return found

    def compare(self, text: str) -> dict[Place, str] | None:
        """The values that another version of the text has in these places; None where more than values differ.

        Raises NotJson.
        """
        names: dict[int, Place] = {}
        found: dict[Place, str] = {}
        position = 0
        for number, block in enumerate(self._blocks):
            end, behind = position + len(block.text), self._gap(number + 1)
            if text.startswith(block.text, position) and text.startswith(behind, end):
                position = end
                continue
            names = names or {
                at: (inside, name) for inside, known in self._places.items() for name, at in known.items()
            }
            for slot, gaps in enumerate(pairwise([*map(block.gap, range(len(block.starts))), behind])):
                if not text.startswith(gaps[0], position):
                    return None
                position += len(gaps[0])
                value = block.value(slot)
                end = position + len(value)
                if not (text.startswith(value, position) and text.startswith(gaps[1], end)):
                    _, end = decode_at(text, position)
                    found[names[number * BLOCK + slot]] = text[position:end]
                position = end
        return found if text[position:] == self._tail else None

    def _gap(self, number: int) -> str:
        return self._blocks[number].gap(0) if number < len(self._blocks) else self._tail

    def put(self, values: Mapping[Place, str]) -> None:
        """Put new values into their places."""
        for (inside, name), text in values.items():
            if name in self._places[inside]:
                number, slot = divmod(self._places[inside][name], BLOCK)
                self._blocks[number].put(slot, text)
            else:
                self._add(name, text)

    def texts(self) -> Iterator[str]:
        yield from (block.text for block in self._blocks)
        yield self._tail

    def text(self) -> str:
        return "".join(self.texts())

    def _add(self, name: str, record: str) -> None:
        """A new record behind the last one."""
        if len(self._blocks[self._last].starts) >= BLOCK:
            self._last += 1
            self._blocks.insert(self._last, _Block(""))
            sections = self._places[""]
            sections.update((key, at + BLOCK) for key, at in sections.items() if at >= self._last * BLOCK)
        block = self._blocks[self._last]
        self._places["agents"][intern(name)] = self._last * BLOCK + len(block.starts)
        block.append("," + (self._lead or self.style.comma) + encode(name) + self.style.colon, record)


class _Records(Mapping[str, Mapping[str, str]]):
    """What the file says, read from its pieces where somebody asks; `own`: of sections and of the file itself."""

    def __init__(self, pieces: Pieces, own: dict[str, Mapping[str, str]]) -> None:
        self._pieces, self._own = pieces, own
        self._last: tuple[str, Mapping[str, str]] = "", {}

    def __getitem__(self, name: str) -> Mapping[str, str]:
        if name in self._own:
            return self._own[name]
        raw = self._pieces.value("agents", name)
        if self._last[0] != raw:  # who asks for one field asks for the next
            record = read_record(name, raw)
            assert record is not None  # one that is not as it should be is a problem, and stays unpacked
            self._last = raw, record
        return self._last[1]

    def __contains__(self, name: object) -> bool:
        return name in self._own or name in self._pieces.records

    def __iter__(self) -> Iterator[str]:
        yield from self._pieces.records
        yield from self._own

    def __len__(self) -> int:
        return len(self._pieces.records) + len(self._own)

    def update(self, new: Mapping[str, Mapping[str, str]]) -> None:
        """The records are in the pieces already."""
        self._own.update((name, values) for name, values in new.items() if name in (FILE, SHARED))


class Draft:
    """One reading of the file that follows the writes made to it. Once it is in pieces its text is put together only
    when it is asked for: an edit costs the same however large the file is."""

    def __init__(self, context: Context) -> None:
        self._values: dict[str, Mapping[str, str]] | _Records = dict(context.values)
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

    def says(self, data: bytes) -> bool:
        """Whether these are the very bytes, but for a byte order mark; part by part, for they may be many."""
        position = len(BOM_UTF8) if data.startswith(BOM_UTF8) else 0
        for text in (self._context.text,) if self._pieces is None else self._pieces.texts():
            part = text.encode()
            if not data.startswith(part, position):
                return False
            position += len(part)
        return position == len(data)

    def rest(self) -> None:
        """Keep as little as is needed to go on, for a while in which nobody looks at it: what the records say is read
        from the text again where it is asked for."""
        pieces = self._cut()
        if pieces is not None and isinstance(self._values, dict):
            own = {name: self._values[name] for name in (FILE, SHARED) if name in self._values}
            self._values = _Records(pieces, own)
            self._context = replace(self._context, values=self._values)

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
        """The records with new values in these places; None where one is not as a record should be. Raises NotJson."""
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
                check_depth(text)
                values[owner] = {**values.get(owner, known[owner]), name: plain_text(text)}
        return values

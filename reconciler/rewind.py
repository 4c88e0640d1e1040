"""An agent as it was: the changes of its versions folded back, from the newest to the one that is wanted. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .errors import NotFound
from .events import Event
from .state import LAST_UPDATE, Agent, decode, decode_at, members, minify, same_value, skip_blank, split_object


def rewind(agent: str, fields: Agent, events: Sequence[Event], span: range) -> dict[str, str | None]:
    """What to write so that `fields` are again what they were: field to JSON text, None to delete it.

    `events`: the history that there is; it must have all of `span`, the versions to undo.
    Raises NotFound where the history has lost one.
    """
    by_version = {event.version: event for event in events}
    lost = [version for version in span if version not in by_version]
    if lost:
        hint = f"reconciler history {agent} shows what is there; the setting `history` says how many versions are kept"
        raise NotFound(f"the history of {agent} goes back to version {lost[-1]} only", hint=hint)
    wanted: dict[str, str | None] = {}
    for version in reversed(span):
        wanted |= {name: old for name, (old, _) in changed(by_version[version]).items()}
    # Where an older version tells, it knows better: of a raw write, what it replaced may not have been known.
    for event in sorted(events, key=lambda event: event.version):
        if event.version < span.start:
            wanted |= {name: new for name, (_, new) in changed(event).items() if name in wanted}
    return {
        name: text for name, text in wanted.items()
        if name != LAST_UPDATE and not same_value(name, text, fields[name].text if name in fields else None)
    }  # fmt: skip


def changed(event: Event) -> dict[str, tuple[str | None, str | None]]:
    """Each field that a version changed, and its texts before and after, every token as it was written."""
    found: dict[str, tuple[str | None, str | None]] = {}
    for text in _changes(event.source):
        change = split_object(text)
        op = decode(change["op"])
        found[decode(change["field"])] = (None if op == "create" else change["old"],
                                          None if op == "delete" else change["new"])  # fmt: skip
    return found


def _changes(source: str) -> Iterator[str]:
    """The elements of `changes` in a message, as texts."""
    start = next((member.start for member in members(source, skip_blank(source, 0)) if member.key == "changes"), None)
    if start is None:
        return
    position = skip_blank(source, start + 1)
    while source[position : position + 1] != "]":
        _, end = decode_at(source, position)
        yield minify(source[position:end])
        position = skip_blank(source, end)
        if source[position : position + 1] == ",":
            position = skip_blank(source, position + 1)

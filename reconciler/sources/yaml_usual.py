"""The usual YAML, read in one loop: mappings, lists and scalars, without anchors, tags and other rarities.

Twice as fast as what reads everything (`yaml_text`), and only for what is surely right: at anything else it gives up,
and that one begins anew and says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from yaml.events import (
    DocumentEndEvent,
    DocumentStartEvent,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
    StreamEndEvent,
    StreamStartEvent,
)

from ..state import MAX_DEPTH
from .text import Document


def read_usual(next_event: Callable[[], Any], plain: Callable[[str], Any]) -> list[Document] | None:
    """All documents, or None where one is not usual. `plain` gives the value of a scalar without quotes. Raises what
    the two raise."""
    documents: list[Document] = []
    around: list[Any] = []
    top: Any = None  # the innermost container, whose waiting key is `key`
    key: str | None = None
    result, line = None, 1
    while (event := next_event()) is not None:
        kind = type(event)
        if kind is ScalarEvent:
            if event.anchor is not None or event.tag is not None:
                return None
            value = event.value if event.style else plain(event.value)
        elif kind is MappingStartEvent or kind is SequenceStartEvent:
            if event.anchor is not None or event.tag is not None or len(around) >= MAX_DEPTH:
                return None
            value = {} if kind is MappingStartEvent else []
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            top = around.pop()
            continue
        elif kind is DocumentStartEvent:
            result, line = None, event.start_mark.line + 1
            continue
        elif kind is DocumentEndEvent:
            documents.append(Document(result, line))
            continue
        elif kind is StreamStartEvent or kind is StreamEndEvent:
            continue
        else:
            return None
        if key is not None:
            top[key], key = value, None
        elif type(top) is list:
            top.append(value)
        elif top is None:
            result = value
        elif type(value) is str and value not in top and value != "<<":
            key = value
            continue
        else:
            return None
        if kind is not ScalarEvent:
            around.append(top)
            top = value
    return documents

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


def read_usual(next_event: Callable[[], Any], scalar: Callable[[ScalarEvent], Any]) -> list[Document] | None:
    """All documents, or None where one is not usual. `scalar` gives a scalar's value. Raises what the two raise."""
    documents: list[Document] = []
    around: list[Any] = []
    top: Any = None  # the innermost container, whose waiting key is `key`
    key: str | None = None
    result, line = None, 1
    while (event := next_event()) is not None:
        kind = type(event)
        if kind is ScalarEvent or kind is MappingStartEvent or kind is SequenceStartEvent:
            if event.anchor is not None or event.tag is not None:
                return None
            value = scalar(event) if kind is ScalarEvent else {} if kind is MappingStartEvent else []
            if type(top) is list:
                top.append(value)
            elif top is None:
                result = value
            elif key is not None:
                top[key], key = value, None
            elif type(value) is str and value not in top and value != "<<":
                key = value
                continue
            else:
                return None
            if kind is not ScalarEvent:
                if len(around) >= MAX_DEPTH:
                    return None
                around.append(top)
                top = value
        elif kind is MappingEndEvent or kind is SequenceEndEvent:
            top = around.pop()
        elif kind is DocumentStartEvent:
            result, line = None, event.start_mark.line + 1
        elif kind is DocumentEndEvent:
            documents.append(Document(result, line))
        elif kind is not StreamStartEvent and kind is not StreamEndEvent:
            return None
    return documents

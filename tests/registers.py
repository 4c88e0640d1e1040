"""What Redis remembers of an agent's fields: when each was written, and by whom."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reconciler.store.layout import Entry, keys_of, read_registers


def registers(client: Any, agent: str) -> dict[str, Entry]:
    return decoded(client.hgetall(keys_of(agent).sidecar))


def decoded(sidecar: Mapping[Any, Any]) -> dict[str, Entry]:
    return read_registers({_text(name): _text(text) for name, text in sidecar.items()})


def _text(word: bytes | str) -> str:
    return word if isinstance(word, str) else word.decode("utf-8", "replace")

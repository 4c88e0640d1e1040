"""Making very many objects at once, and giving back what they took."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol


class Cache(Protocol):
    """What `lru_cache` makes."""

    def cache_clear(self) -> Any: ...


@contextmanager
def making_many() -> Iterator[None]:
    """All of it is new, so nothing in it is garbage yet: looking for some, again and again while it grows, would cost
    a good part of making it."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def give_back(*caches: Cache) -> None:
    """Give the memory of very many objects that are gone back to the system. The caches, which were filled meanwhile,
    are emptied: the interpreter gives back what no single object lies in, and the C library (glibc) when it is told."""
    for cache in caches:
        cache.cache_clear()
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)

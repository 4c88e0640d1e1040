"""A TCP relay to a server, over which connections get lost, fall silent, or become slow."""

from __future__ import annotations

import socket
import struct
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Self


class Relay:
    """Forwards every connection to a unix socket. `delay`: seconds before each piece goes on; `rate`: bytes a second.

    `freeze` makes those that are there half-open: nothing is forwarded, nothing closed, and `swallowed` counts what was
    said meanwhile; `reset` ends them. New ones work, unless `refuses`.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.delay, self.rate, self.refuses = 0.0, 0, False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self._frozen: set[socket.socket] = set()
        self.swallowed = 0
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"

    @property
    def connected(self) -> bool:
        return bool(self._sockets)

    def freeze(self) -> None:
        self._frozen = set(self._sockets)

    def reset(self) -> None:
        """Every connection ends with RST, on both sides."""
        there, self._sockets = self._sockets, []
        for each in there:
            with suppress(OSError):  # the other side was faster
                each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for each in (self._listener, *self._sockets):
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                ours, _ = self._listener.accept()
                theirs = socket.socket(socket.AF_UNIX)
                try:
                    if self.refuses:
                        raise ConnectionRefusedError
                    theirs.connect(str(self._path))
                except OSError:  # the server is away
                    for each in (ours, theirs):
                        each.close()
                    continue
                self._sockets.extend((ours, theirs))
                for pair in ((ours, theirs), (theirs, ours)):
                    threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while text := source.recv(65_536):
                if source in self._frozen:
                    self.swallowed += 1
                    continue
                time.sleep(self.delay)
                step = self.rate // 10 or len(text)
                for start in range(0, len(text), step):
                    sink.sendall(text[start : start + step])
                    if self.rate:
                        time.sleep(0.1)
            if source not in self._frozen:
                sink.shutdown(socket.SHUT_RDWR)

"""What passes news on elsewhere, NATS and etcd: a server of each, a client that writes, and a process that watches."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from . import listening, peers
from .calls import context, texts
from .listening import Listener
from .rig import started, temporary, waited
from .ways import Way, heard


def _value(name: str, token: str) -> bytes:
    return json.dumps(texts(name, context(token))).encode()


def nats(folder: Path | None, opened: ExitStack) -> Way | None:
    """JetStream's key-value store, in memory."""
    library, program = peers.library("nats", folder), peers.program("nats-server", folder)
    if library is None or program is None:
        return None
    port = _port()
    url = f"nats://127.0.0.1:{port}"
    command = [str(program), "-a", "127.0.0.1", "-p", str(port), "-js", "-sd", str(opened.enter_context(temporary()))]
    process = opened.enter_context(started(command))
    waited(partial(_open, port), "nats-server", process)
    sys.path.insert(0, str(library))
    opened.callback(sys.path.remove, str(library))
    from nats import connect
    from nats.js.api import KeyValueConfig, StorageType

    loop = asyncio.new_event_loop()
    opened.callback(loop.close)

    async def begin() -> tuple[Any, Any]:
        client = await connect(url)
        return client, await client.jetstream().create_key_value(
            KeyValueConfig(bucket="bench", storage=StorageType.MEMORY)
        )

    client, store = loop.run_until_complete(begin())
    opened.callback(lambda: loop.run_until_complete(client.close()))
    listener = opened.enter_context(Listener(listening.nats, str(library), url, "bench"))
    return heard(listener, lambda name, token: loop.run_until_complete(store.put(name, _value(name, token))))


def etcd(folder: Path | None, opened: ExitStack) -> Way | None:
    """Put and watch, its data in memory where there is a tmpfs."""
    library, program = peers.library("etcd", folder), peers.program("etcd-server", folder)
    if library is None or program is None:
        return None
    shared = Path("/dev/shm")
    data = opened.enter_context(temporary(shared if shared.is_dir() else None))
    port, peer = _port(), _port()
    here, other = f"http://127.0.0.1:{port}", f"http://127.0.0.1:{peer}"
    command = [str(program), "--data-dir", str(data), "--log-level", "error", "--listen-client-urls", here,
               "--advertise-client-urls", here, "--listen-peer-urls", other, "--initial-advertise-peer-urls", other,
               "--initial-cluster", f"default={other}"]  # fmt: skip
    process = opened.enter_context(started(command))
    waited(partial(_open, port), "etcd", process)
    sys.path.insert(0, str(library))
    opened.callback(sys.path.remove, str(library))
    import pyetcd

    client = pyetcd.client(host="127.0.0.1", port=port)
    opened.callback(client.close)
    listener = opened.enter_context(Listener(listening.etcd, str(library), port, "bench/"))
    return heard(listener, lambda name, token: client.put(f"bench/{name}", _value(name, token)))


def _port() -> int:
    """One that is free now."""
    with socket.create_server(("127.0.0.1", 0)) as asking:
        return int(asking.getsockname()[1])


def _open(port: int) -> bool:
    with socket.socket() as asking:
        return asking.connect_ex(("127.0.0.1", port)) == 0

"""`rediss://`: the same store behind TLS, by a relay that ends it before a real server. Its certificate is in
`localhost.pem`, made for this alone, by `openssl ca -selfsign`, and good from 2000 to 2100."""

from __future__ import annotations

import asyncio
import signal
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from reconciler.errors import StoreAway
from reconciler.store import Write
from reconciler.store.connect import connect
from reconciler.store.redis_store import RedisStore
from tests.contract.kit import put
from tests.servers import Server

PEM = Path(__file__).with_name("localhost.pem")


@contextmanager
def behind_tls(server: Server) -> Iterator[str]:
    """The URL under which a server can be reached by TLS."""
    secured = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    secured.load_cert_chain(PEM)
    loop = asyncio.new_event_loop()

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        theirs, ours = await asyncio.open_unix_connection(server.url.removeprefix("unix://"))
        try:
            with suppress(OSError):
                await asyncio.gather(forward(reader, ours), forward(theirs, writer))
        finally:
            for each in (ours, writer):
                each.transport.abort()

    async def forward(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while text := await source.read(65_536):
            sink.write(text)
        sink.close()

    listening = loop.run_until_complete(asyncio.start_server(relay, "127.0.0.1", 0, ssl=secured))
    port = listening.sockets[0].getsockname()[1]
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"rediss://localhost:{port}/0?ssl_ca_certs={PEM}"
    finally:

        async def end() -> None:
            listening.close()
            others = asyncio.all_tasks() - {asyncio.current_task()}
            for task in others:
                task.cancel()
            await asyncio.gather(*others, return_exceptions=True)
            await asyncio.sleep(0)  # what was aborted is closed in the next turn
            loop.stop()

        asyncio.run_coroutine_threadsafe(end(), loop)
        thread.join()
        loop.close()


def test_a_server_that_hangs_behind_tls_is_away_after_a_second(launch: Callable[..., Server]) -> None:
    """The kernel's timeout, which plain connections use, is none for TLS: it asks again, for ever."""
    server = launch()
    with behind_tls(server) as url:
        store = RedisStore(connect(url, None, print), "tester@host")
        assert store.write([Write("mary", (put("status", "x"),))])[0].won
        assert store.observe({}).agents["mary"].fields["status"].text == '"x"'
        ended: list[object] = []

        def write() -> None:
            with pytest.raises(StoreAway):
                store.write([Write("mary", (put("status", "late"),))])
            ended.append(True)

        writing = threading.Thread(target=write, daemon=True)
        server.process.send_signal(signal.SIGSTOP)
        try:
            writing.start()
            writing.join(20)
        finally:
            server.process.send_signal(signal.SIGCONT)
        assert ended
        assert store.write([Write("mary", (put("status", "y"),))])[0].won
        assert store.observe({}).agents["mary"].fields["status"].text == '"y"'
        store.close()

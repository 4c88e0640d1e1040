"""What an address is answered when it means another kind of server, another service, or nobody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from reconciler.errors import ReconcilerError, StoreAway, StoreError
from reconciler.store import LiveStore, Put, Write
from reconciler.store.connect import connect, public_name
from reconciler.store.redis_store import RedisStore
from tests.beyond.servers import Farm, Sharded, ask, farm, free_ports
from tests.servers import Server

Open = Callable[..., LiveStore]


@pytest.fixture
def open_store() -> Iterator[Open]:
    """Opens the store at an address, with a password of the settings if there is one."""
    with ExitStack() as stack:

        def opened(url: str, password: str | None = None, warnings: list[str] | None = None) -> LiveStore:
            client = connect(url, password, (warnings if warnings is not None else []).append)
            store = RedisStore(client, "tester", name=public_name(url))
            stack.callback(store.close)
            return store

        yield opened


@pytest.fixture(scope="module")
def alone() -> Iterator[int]:
    """The port of a server that is no cluster, and of no interest to a sentinel."""
    with farm("bundled") as servers:
        port = free_ports(1)[0]
        servers.start(port, "--port", str(port), "--bind", "127.0.0.1", "--save", "")
        yield port


@pytest.fixture
def locked() -> Iterator[tuple[Farm, int, int]]:
    """A server and a sentinel that watches it; the one's password is `data`, the other's `watch`."""
    with farm("bundled") as servers:
        port, sentinel = free_ports(2)
        servers.start(port, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--requirepass", "data")
        path = servers.folder / "sentinel.conf"
        path.write_text(
            f"port {sentinel}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {port} 1\n"
            "sentinel auth-pass mymaster data\nrequirepass watch\n"
        )
        servers.start(sentinel, str(path), "--sentinel")
        yield servers, port, sentinel


def refused(kind: type[ReconcilerError], work: Callable[[], object]) -> str:
    """What is said, with its hint, on one line each."""
    with pytest.raises(kind) as caught:
        work()
    assert type(caught.value) is kind and "\n" not in caught.value.message
    return f"{caught.value.message}; {caught.value.hint}"


def test_one_node_of_a_cluster_names_the_scheme_to_use(cluster: Sharded, open_store: Open) -> None:
    """redis:// where redis+cluster:// is meant: told by the first answer, whichever call it is."""
    store = open_store(f"redis://127.0.0.1:{cluster.ports[0]}/0")
    names = [f"a{number}" for number in range(9)]
    calls: list[Callable[[], object]] = [
        lambda: store.write([Write(name, (Put("status", '"x"', None, "me"),)) for name in names]),
        lambda: store.observe({}, names),
        lambda: store.versions(names),
        lambda: open_store(f"redis://127.0.0.1:{cluster.ports[0]}/2"),
    ]
    for call in calls:
        assert "is one node of a cluster; write redis+cluster://" in refused(StoreError, call)


def test_a_server_that_is_no_cluster_is_said_to_be_none(alone: int, open_store: Open) -> None:
    """And redis:// is named."""
    said = refused(StoreError, lambda: open_store(f"redis+cluster://127.0.0.1:{alone}"))
    assert said == f"redis+cluster://127.0.0.1:{alone} is no cluster; redis:// is for a server that stands alone"


def test_nobody_at_any_of_the_addresses_is_away(open_store: Open) -> None:
    """Temporary, whichever kind it is; and the places are named."""
    one, two = free_ports(2)
    places = f"127.0.0.1:{one},127.0.0.1:{two}"
    said = refused(StoreAway, lambda: open_store(f"redis+sentinel://:secret@{places}/m?sentinel_password=secret"))
    assert said == (
        f"redis+sentinel://{places}/m is away: no sentinel answers at 127.0.0.1:{one}, 127.0.0.1:{two}; "
        "is the server running?"
    )
    said = refused(StoreAway, lambda: open_store(f"redis+cluster://:secret@{places}"))
    assert said.startswith(f"redis+cluster://{places} is away: ") and "secret" not in said


def test_a_cluster_with_slots_that_nobody_serves_is_away(open_store: Open) -> None:
    """It may be whole in a moment."""
    with farm("bundled") as servers:
        port = free_ports(1)[0]
        servers.start(port, "--port", str(port), "--bind", "127.0.0.1", "--cluster-enabled", "yes")
        for slot in (1, 2):  # with no slot at all, then with some
            said = refused(StoreAway, lambda: open_store(f"redis+cluster://127.0.0.1:{port}"))
            assert "slots are served" in said
            ask(port, "CLUSTER", "ADDSLOTS", slot)


def test_what_is_no_sentinel_is_said_to_be_none(alone: int, open_store: Open) -> None:
    """The data server's address in place of a sentinel's is the usual mistake."""
    said = refused(StoreError, lambda: open_store(f"redis+sentinel://127.0.0.1:{alone}/mymaster"))
    assert f"names 127.0.0.1:{alone}, which does not answer as a sentinel" in said


def test_sentinels_and_servers_have_passwords_of_their_own(locked: tuple[Farm, int, int], open_store: Open) -> None:
    """Each is found or asked for by itself, none is shown, and an unknown service is named."""
    _, _, sentinel = locked
    url = f"redis+sentinel://127.0.0.1:{sentinel}/mymaster"
    assert open_store(f"{url}?sentinel_password=watch", "data").versions(["a"]) == {"a": 0}
    assert open_store(url.replace("127", ":data@127") + "?sentinel_password=watch", "bad").versions([]) == {}
    said = refused(StoreError, lambda: open_store(url, "data"))
    assert f"names 127.0.0.1:{sentinel}, a sentinel that asks for another password" in said
    assert "?sentinel_password=" in said
    assert "password" in refused(StoreError, lambda: open_store(f"{url}?sentinel_password=watch"))
    said = refused(StoreError, lambda: open_store(f"{url}?sentinel_password=watch", "wrong"))
    assert "refuses the password" in said and "wrong" not in said
    other = url.replace("mymaster", "other") + "?sentinel_password=watch"
    assert "names a service that its sentinels do not watch; they watch mymaster" in refused(
        StoreError, lambda: open_store(other, "data")
    )


def test_a_cluster_without_a_password_is_used_without(cluster: Sharded, open_store: Open) -> None:
    """As a single server is, and it is said."""
    warnings: list[str] = []
    assert open_store(cluster.url, "needless", warnings).versions(["a"]) == {"a": 0}
    assert warnings == [f"{cluster.url} has no password although one is configured; it was used without"]


def test_a_single_server_is_what_it_was(valkey: Server, open_store: Open) -> None:
    """Its addresses are read by the client itself."""
    assert open_store(valkey.url).versions(["nobody"]) == {"nobody": 0}

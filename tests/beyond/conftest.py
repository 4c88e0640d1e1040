"""A cluster for the whole session, of each kind of server; sentinels and their servers for each test that kills."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.beyond.servers import KINDS, Sharded, Watched, sharded, watched


@pytest.fixture(scope="session", params=KINDS)
def one_cluster(request: pytest.FixtureRequest) -> Iterator[Sharded]:
    with sharded(request.param) as found:
        yield found


@pytest.fixture
def cluster(one_cluster: Sharded) -> Sharded:
    """Three masters with nothing in them."""
    one_cluster.empty()
    return one_cluster


@pytest.fixture(scope="module", params=KINDS)
def sentinels(request: pytest.FixtureRequest) -> Iterator[Watched]:
    with watched(request.param) as found:
        yield found

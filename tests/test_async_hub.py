"""The hub for callers with an event loop: the same surface, the same rules."""

from __future__ import annotations

import asyncio
import gc
import inspect
import threading
import weakref
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from reconciler import AsyncUnifiedMemoryHub, UnifiedMemoryHub
from reconciler.errors import NotFound, UsageError
from reconciler.settings import Settings, build
from tests.servers import Memory, Server


@pytest.fixture
def chosen(tmp_path: Path, valkey: Server, real: Memory) -> Settings:
    return replace(build(tmp_path, {}, {}, {}), redis=valkey.url, writer="me@here")


def run(work: Callable[[AsyncUnifiedMemoryHub], Awaitable[None]], chosen: Settings) -> None:
    async def inside() -> None:
        async with AsyncUnifiedMemoryHub(settings=chosen) as hub:
            await asyncio.wait_for(work(hub), 30)

    asyncio.run(inside())


def public(kind: type) -> dict[str, list[tuple[str, object, object]]]:
    return {
        name: [(one.name, one.kind, one.default) for one in inspect.signature(method).parameters.values()]
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def test_both_hubs_have_the_same_surface() -> None:
    """Every method with the same parameters; all are awaited but `subscribe_updates`."""
    assert public(AsyncUnifiedMemoryHub) == public(UnifiedMemoryHub)
    plain = [name for name in public(AsyncUnifiedMemoryHub)
             if not inspect.iscoroutinefunction(getattr(AsyncUnifiedMemoryHub, name))]  # fmt: skip
    assert plain == ["subscribe_updates"]
    known = inspect.signature(UnifiedMemoryHub.__init__).parameters.keys()
    assert inspect.signature(AsyncUnifiedMemoryHub.__init__).parameters.keys() == known


def test_a_subscription_that_was_closed_is_forgotten(chosen: Settings) -> None:
    """A server that makes one for each of its clients must not grow."""

    async def work(hub: AsyncUnifiedMemoryHub) -> None:
        made = []
        for _ in range(5):
            async with hub.subscribe_updates() as subscription:
                made.append(weakref.ref(subscription))
            del subscription
        gc.collect()
        assert [one() for one in made] == [None] * 5

    run(work, chosen)


def test_a_subscription_that_could_not_begin_is_forgotten(chosen: Settings) -> None:
    """A server that takes names from its clients must not grow by those that are wrong."""

    async def work(hub: AsyncUnifiedMemoryHub) -> None:
        for _ in range(5):
            with pytest.raises(UsageError):
                async with hub.subscribe_updates(agents=["a b"]):
                    raise AssertionError
        assert not hub._subscriptions
        assert not [thread for thread in threading.enumerate() if thread.name.startswith("events")]

    run(work, chosen)


def test_a_hub_that_was_closed_says_so(chosen: Settings) -> None:
    """Whatever it is asked for, opened before or not."""

    async def work(hub: AsyncUnifiedMemoryHub) -> None:
        await hub.close()
        with pytest.raises(UsageError, match="this hub is closed"):
            await hub.get_unified_context()
        with pytest.raises(UsageError, match="this hub is closed"):
            hub.subscribe_updates()
        await hub.close()

    run(work, chosen)
    asyncio.run(work(AsyncUnifiedMemoryHub(settings=chosen)))


def test_what_it_writes_it_reads(chosen: Settings) -> None:
    """Side by side, with the errors of the other hub."""

    async def work(hub: AsyncUnifiedMemoryHub) -> None:
        done = await asyncio.gather(*[hub.update_agent_context("mary", {f"k{n}": n}) for n in range(50)])
        assert sorted(one.version for one in done) == list(range(1, 51))
        assert len((await hub.get_agent("mary"))["context"]) == 50
        assert (await hub.update_many({"rnd": {"a": 1}}))[0].won == ("context.a",)
        assert set((await hub.get_unified_context())["agents"]) == {"mary", "rnd"}
        assert (await hub.rollback("mary", 1)).version == 51
        assert len(await hub.history("mary", 3)) == 3
        assert (await hub.sync_from_file()).store == "redis"
        assert (await hub.sync_to_file()).problems == ()
        assert await hub.publish_update({"agent": "mary", "event": "note"}) == 0
        await hub.delete_agent("rnd")
        with pytest.raises(NotFound):
            await hub.get_agent("rnd")
        with pytest.raises(UsageError):
            await hub.update_agent_context("a b", {"a": 1})

    run(work, chosen)


def test_events_arrive_in_order_and_cancelling_loses_none(chosen: Settings) -> None:
    """An event that was on its way when its reader was cancelled is the next one's."""

    async def work(hub: AsyncUnifiedMemoryHub) -> None:
        seen: list[int] = []
        async with hub.subscribe_updates(agents=["mary"]) as events:
            writing = asyncio.create_task(hub.update_many([("mary", {"n": n}) for n in range(300)]))
            while len(seen) < 300:
                try:
                    seen.append((await asyncio.wait_for(anext(events), 0.002)).version)
                except TimeoutError:
                    continue
            await writing
        assert seen == list(range(1, 301))
        assert [event async for event in events] == []

    run(work, chosen)


def test_closing_ends_whoever_waits_for_an_event(chosen: Settings) -> None:
    """In another task, soon."""

    async def work(hub: AsyncUnifiedMemoryHub) -> None:
        events = await hub.subscribe_updates().ready()

        async def read() -> int:
            return len([event async for event in events])

        reading = asyncio.create_task(read())
        await hub.update_agent_context("mary", {"a": 1})
        await hub.close()
        assert await asyncio.wait_for(reading, 5) <= 1

    run(work, chosen)


def test_a_cancelled_write_does_not_harm_the_next_one(chosen: Settings) -> None:
    """It may still happen; nobody reads an answer that was meant for it."""

    async def work(hub: AsyncUnifiedMemoryHub) -> None:
        for number in range(20):
            task = asyncio.create_task(hub.update_agent_context("mary", {"n": number}))
            await asyncio.sleep(0)
            task.cancel()
        done = await hub.update_agent_context("mary", {"last": 1})
        assert done.won == ("context.last",) and (await hub.get_agent("mary"))["context"]["last"] == 1

    run(work, chosen)


def test_it_works_on_files_while_redis_is_away(tmp_path: Path) -> None:
    """As the other one."""

    async def work(hub: AsyncUnifiedMemoryHub) -> None:
        assert (await hub.update_agent_context("mary", {"a": 1})).store == "file"
        assert (await hub.get_unified_context())["agents"]["mary"]["context"] == {"a": 1}

    run(work, replace(build(tmp_path, {}, {}, {}), redis=f"unix://{tmp_path}/nobody"))

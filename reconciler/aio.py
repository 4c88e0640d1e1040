"""`AsyncUnifiedMemoryHub`: the hub for callers that have an event loop.

It is the same hub, its calls made in threads of its own, so that every rule is in one place; files, fsync and SQLite
would block the loop in any case (docs/decisions/async-hub.md). A call that is cancelled stops being waited for, not
being done: a write may still happen.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Self, TypeVar

from .errors import UsageError
from .events import Event
from .follow import Since
from .hub import Callback, SyncResult, UnifiedMemoryHub, WriteResult
from .settings import Settings
from .subscribe import Subscription

T = TypeVar("T")
_THREADS = 16
_LOOK = 0.5
"""Seconds that a subscription's thread waits for an event before it looks whether anybody still wants one."""


class AsyncSubscription(AsyncIterator[Event]):
    """`Subscription` for `async for`; also `async with`, which waits until nothing more is missed.

    It begins to listen when it is made. An event that had arrived when the waiting for it was cancelled is the next
    one's. It may be closed at any time, and has a thread of its own.
    """

    def __init__(self, open_it: Callable[[], Subscription], ended: Callable[[AsyncSubscription], object]) -> None:
        self._ended = ended
        self._executor = ThreadPoolExecutor(1, "events")
        self._opening = self._executor.submit(open_it)
        self._next: Future[Event | None] | None = None
        self._closed = False

    async def ready(self) -> Self:
        """Wait until it listens. Raises what `subscribe_updates` raises."""
        await asyncio.shield(asyncio.wrap_future(self._opening))
        return self

    async def __anext__(self) -> Event:
        while not self._closed:
            if self._next is None:
                self._next = self._executor.submit(lambda: self._opening.result().next_event(_LOOK))
            try:
                event = await asyncio.shield(asyncio.wrap_future(self._next))
            except asyncio.CancelledError:
                raise
            except BaseException:
                self._next = None
                raise
            self._next = None
            if event is not None:
                return event
            if self._opening.result().closed:
                break
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        try:
            return await self.ready()
        except BaseException:  # nobody leaves what he did not enter
            await asyncio.shield(self.close())
            raise

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """End it; whoever waits for an event in another task is told that there are no more."""
        self._closed = True
        await asyncio.to_thread(self._end)

    def _end(self) -> None:
        if not self._opening.cancel() and self._opening.exception() is None:
            self._opening.result().close()
        self._executor.shutdown()
        self._ended(self)


class AsyncUnifiedMemoryHub:
    """`UnifiedMemoryHub` with awaitable methods; what they take, give and raise is told there.

    It opens with the first call, or with `async with`. For one event loop.

        async with AsyncUnifiedMemoryHub() as hub:
            await hub.update_agent_context("mary", {"last_task": "deploy"})
            async for event in hub.subscribe_updates(agents=["mary"]):
                ...
    """

    def __init__(
        self,
        root: str | None = None,
        redis: str | None = None,
        *,
        settings: Settings | None = None,
        warn: Callable[[str], None] = lambda text: None,
        reading: bool = False,
    ) -> None:
        self._make = partial(UnifiedMemoryHub, root, redis, settings=settings, warn=warn, reading=reading)
        self._executor = ThreadPoolExecutor(_THREADS, "hub")
        self._opening: Future[UnifiedMemoryHub] | None = None
        self._subscriptions: set[AsyncSubscription] = set()
        self._closed = False

    async def __aenter__(self) -> Self:
        await asyncio.shield(asyncio.wrap_future(self._open()))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Let what is being done be done, then close; every further call raises UsageError."""
        self._closed = True
        for subscription in list(self._subscriptions):
            await subscription.close()
        await asyncio.to_thread(self._end)

    async def update_agent_context(  # noqa: PLR0913 - the contract's own
        self,
        agent: str,
        context: Mapping[str, Any] | None = None,
        *,
        status: str | None = None,
        fields: Mapping[str, Any] | None = None,
        replace: bool = False,
        durable: bool = False,
        priority: str = "normal",
    ) -> WriteResult:
        return await self._call(lambda hub: hub.update_agent_context(
            agent, context, status=status, fields=fields, replace=replace, durable=durable, priority=priority
        ))  # fmt: skip

    async def update_many(self, batch: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> list[WriteResult]:
        return await self._call(lambda hub: hub.update_many(batch))

    async def delete_agent(self, agent: str) -> WriteResult:
        return await self._call(lambda hub: hub.delete_agent(agent))

    async def rollback(self, agent: str, version: int) -> WriteResult:
        return await self._call(lambda hub: hub.rollback(agent, version))

    async def get_agent(self, agent: str) -> dict[str, Any]:
        return await self._call(lambda hub: hub.get_agent(agent))

    async def get_unified_context(self) -> dict[str, Any]:
        return await self._call(lambda hub: hub.get_unified_context())

    async def unified_text(self) -> str:
        return await self._call(lambda hub: hub.unified_text())

    async def agent_text(self, agent: str) -> str:
        return await self._call(lambda hub: hub.agent_text(agent))

    async def history(self, agent: str, count: int = 100) -> list[Event]:
        return await self._call(lambda hub: hub.history(agent, count))

    async def sync_from_file(self) -> SyncResult:
        return await self._call(lambda hub: hub.sync_from_file())

    async def sync_to_file(self, data: Mapping[str, Any] | None = None) -> SyncResult:
        return await self._call(lambda hub: hub.sync_to_file(data))

    async def publish_update(self, update: Mapping[str, Any]) -> int:
        return await self._call(lambda hub: hub.publish_update(update))

    def subscribe_updates(
        self,
        agents: Iterable[str] | Callback | None = None,
        events: Iterable[str] | None = None,
        since: Since = None,
        callback: Callback | None = None,
    ) -> AsyncSubscription:
        """Not awaited itself; `async for` over what it gives. A callback is called in a thread."""
        opening = self._open()
        subscription = AsyncSubscription(
            lambda: opening.result().subscribe_updates(agents, events, since, callback), self._subscriptions.discard
        )
        self._subscriptions.add(subscription)
        return subscription

    def _open(self) -> Future[UnifiedMemoryHub]:
        if self._closed:
            raise UsageError("this hub is closed", hint="open another one")
        if self._opening is None or (self._opening.done() and self._opening.exception() is not None):
            self._opening = self._executor.submit(self._make)
        return self._opening

    async def _call(self, work: Callable[[UnifiedMemoryHub], T]) -> T:
        opening = self._open()
        if not opening.done():
            await asyncio.shield(asyncio.wrap_future(opening))
        hub = self._open().result()  # it may have been closed meanwhile
        return await asyncio.get_running_loop().run_in_executor(self._executor, work, hub)

    def _end(self) -> None:
        self._executor.shutdown()
        if self._opening is not None and not self._opening.cancelled() and self._opening.exception() is None:
            self._opening.result().close()

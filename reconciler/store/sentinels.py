"""Asking sentinels where the master is. The client does so for each new connection, so a failover is followed."""

from __future__ import annotations

from typing import Any

from redis.backoff import NoBackoff
from redis.exceptions import AuthenticationError, ConnectionError, ResponseError, TimeoutError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from ..address import Hosts
from .failures import WrongAddress


class Sentinels(Sentinel):
    """redis-py's own, with its failures told apart, and in words that a user can do something with.

    A sentinel is waited for 0.25 s, so that three that hang do not take longer than a command may.
    """

    def __init__(self, hosts: Hosts) -> None:
        own: dict[str, Any] = {"username": hosts.sentinel_user, "password": hosts.sentinel_password}
        wait = {"socket_connect_timeout": 0.25, "socket_timeout": 0.25, "retry": Retry(NoBackoff(), 0), "protocol": 2}
        super().__init__(hosts.hosts, sentinel_kwargs={**wait, **own})  # type: ignore[no-untyped-call]

    def discover_master(self, service_name: str) -> tuple[str, int]:
        """The master's address. Raises MasterNotFoundError while there is none, WrongAddress."""
        known: set[str] = set()
        answered = down = False
        silent: list[str] = []
        for sentinel in self.sentinels:
            try:
                masters: Any = sentinel.sentinel_masters()
            except AuthenticationError:
                what = f"names {_place(sentinel)}, a sentinel that asks for another password"
                raise WrongAddress(what, "the sentinels have one of their own: ?sentinel_password=") from None
            except (ConnectionError, TimeoutError):
                silent.append(_place(sentinel))
                continue
            except ResponseError as error:
                what = f"names {_place(sentinel)}, which does not answer as a sentinel: {error}"
                raise WrongAddress(what, "redis+sentinel:// takes the addresses of sentinels") from None
            answered = True
            known |= set(masters)
            state = masters.get(service_name)
            if state and self.check_master_state(state, service_name):  # type: ignore[no-untyped-call]
                # Whoever answered is asked first the next time.
                self.sentinels = [sentinel, *(other for other in self.sentinels if other is not sentinel)]
                return str(state["ip"]), int(state["port"])
            down = down or bool(state)
        if down:
            raise MasterNotFoundError(f"the sentinels have no master of {service_name} at the moment")
        if answered:
            names = ", ".join(sorted(known)) or "none"
            raise WrongAddress(f"names a service that its sentinels do not watch; they watch {names}", "give its name")
        raise MasterNotFoundError(f"no sentinel answers at {', '.join(silent)}")


def _place(sentinel: Any) -> str:
    kwargs = sentinel.connection_pool.connection_kwargs
    return f"{kwargs['host']}:{kwargs['port']}"

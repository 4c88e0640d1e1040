"""Three masters, and slots that move between them while everybody writes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from redis.crc import key_slot

from reconciler.errors import StoreAway
from reconciler.events import read_event
from reconciler.store import Put, Write
from reconciler.store.redis_store import HUB
from reconciler.subscribe import Subscription
from tests.beyond.load import Writer, history, in_file, in_redis, running, store_at, workspace
from tests.beyond.servers import Sharded, ask, sharded, slot_of
from tests.waiting import wait_until

AGENTS = [f"agent{number}" for number in range(30)]


def statuses(status: str, agents: list[str]) -> list[Write]:
    return [Write(agent, (Put("status", json.dumps(status), None, "me"),)) for agent in agents]


def test_agents_are_spread_and_every_call_finds_them(cluster: Sharded) -> None:
    """One batch, one reading, versions, history, deletion; each agent's keys are in one slot."""
    with store_at(cluster.url) as store:
        assert all(answer.won for answer in store.write(statuses("one", AGENTS)))
        assert all(answer.version == 2 for answer in store.write(statuses("two", AGENTS)))
        assert len({cluster.owner(slot_of(agent)) for agent in AGENTS}) == 3
        state = store.observe({}).state
        assert {agent: fields["status"].text for agent, fields in state.items()} == dict.fromkeys(AGENTS, '"two"')
        assert store.versions() == dict.fromkeys(AGENTS, 2)
        assert [event.version for event in store.history("agent7", 5)] == [2, 1]
        assert [event.version for event in store.since("agent7", 1)] == [2]
        assert store.write([Write("agent7", (), event="agent_deleted", everything=True)])[0].won
        assert "status" not in {name for name, field in store.observe({}).state["agent7"].items() if field.text}
        assert store.start_epoch("first") == "first" == store.start_epoch("second") == store.observe({}).epoch
        assert sum(bool(ask(port, "CLUSTER", "COUNTKEYSINSLOT", key_slot(HUB.encode()))) for port in cluster.ports) == 1


def test_a_script_is_given_to_the_nodes_that_do_not_know_it(cluster: Sharded) -> None:
    """Flushed everywhere, or on one."""
    with store_at(cluster.url) as store:
        for ports in (cluster.ports, cluster.ports[:1]):
            for port in ports:
                ask(port, "SCRIPT", "FLUSH")
            assert all(not answer.refused for answer in store.write(statuses("x", AGENTS)))
            for port in ports:
                ask(port, "SCRIPT", "FLUSH")
            assert len(store.observe({}).agents) == len(AGENTS)


def test_a_slot_that_moved_or_is_moving_is_followed(cluster: Sharded) -> None:
    """MOVED, ASK for keys that are there already, and a new agent in a slot on its way."""
    with store_at(cluster.url) as store:
        store.write(statuses("one", AGENTS))
        for agent in AGENTS[:5]:
            cluster.move(slot_of(agent))
        assert [answer.version for answer in store.write(statuses("two", AGENTS))] == [2] * len(AGENTS)
        with cluster.moving(slot_of("agent9")) as finish:
            assert [answer.version for answer in store.write(statuses("three", AGENTS))] == [3] * len(AGENTS)
            assert store.versions(["agent9"]) == {"agent9": 3}
            finish()
        assert store.versions() == dict.fromkeys(AGENTS, 3)


def test_a_slot_that_stays_on_its_way_is_away_and_not_refused(cluster: Sharded) -> None:
    """A new agent's keys are in neither place: the servers say TRYAGAIN until the slot has arrived."""
    with store_at(cluster.url) as store:
        store.write(statuses("one", ["agent0"]))
        with cluster.moving(slot_of("nobody-yet")) as finish:
            with pytest.raises(StoreAway, match="did not arrive within 1 s"):
                store.write(statuses("two", ["agent0", "nobody-yet"]))
            finish()
            assert [answer.won for answer in store.write(statuses("two", ["agent0", "nobody-yet"]))] == [False, True]


def test_a_channel_hears_of_every_node(cluster: Sharded) -> None:
    """Pub/sub is the cluster's, and not a node's."""
    with store_at(cluster.url) as store:
        channel = store.listen()
        heard: set[str] = set()
        store.write(statuses("one", AGENTS))

        def all_heard() -> bool:
            heard.update(read_event(text).agent for text in channel.receive(0.1))
            return heard >= set(AGENTS)  # a late one of the test before is no harm

        wait_until(all_heard, what="an event of each agent")
        channel.close()


def test_tracking_hears_of_writes_on_every_node(cluster: Sharded) -> None:
    """One line to each."""
    with store_at(cluster.url) as store:
        tracking = store.track()
        for agent in AGENTS:
            ask(cluster.owner(slot_of(agent)), "HSET", f"memory:agents:{agent}", "status", "raw")
        heard: set[str] = set()

        def all_heard() -> bool:
            heard.update(tracking.receive(0) or ())
            return heard >= set(AGENTS)  # a late one of the test before is no harm

        wait_until(all_heard, what="all agents")
        tracking.close()


def test_a_node_that_joins_is_found() -> None:
    """By a reading of everything, and by tracking, which begins again."""
    with sharded("bundled") as cluster, store_at(cluster.url) as store:
        store.write(statuses("one", AGENTS))
        tracking = store.track()
        source, new = cluster.ports[-1], cluster.join()
        moved = [agent for agent in AGENTS if cluster.owner(slot_of(agent)) == source]
        for agent in moved:
            cluster.move(slot_of(agent))
        assert store.observe({}).agents.keys() == set(AGENTS)
        with pytest.raises(StoreAway, match="other nodes of the cluster"):
            wait_until(lambda: tracking.receive(0) is NotImplemented)
        tracking.close()
        tracking = store.track()
        ask(new, "HSET", f"memory:agents:{moved[0]}", "status", "raw")
        wait_until(lambda: moved[0] in (tracking.receive(0) or ()), what="a write on the new node")
        tracking.close()


def test_a_node_that_dies_is_away_at_once_and_found_again_when_it_is_back() -> None:
    """Without a replica its slots are away, and so is the cluster; nobody waits for it."""
    with sharded("bundled") as cluster, store_at(cluster.url) as store:
        store.write(statuses("one", AGENTS))
        cluster.farm.kill(cluster.ports[1])
        with pytest.raises(StoreAway):
            store.write(statuses("two", AGENTS))
        with pytest.raises(StoreAway), store_at(cluster.url):
            pass
        cluster.start(cluster.ports[1])

        def back() -> bool:
            try:
                with store_at(cluster.url) as again:
                    return all(not answer.refused for answer in again.write(statuses("three", AGENTS)))
            except StoreAway:
                return False

        wait_until(back, seconds=40, what="writes to all nodes")


def test_slots_move_under_load_and_nothing_is_lost(cluster: Sharded, tmp_path: Path) -> None:
    """Writers, a running reconciler and a subscriber all go on; in the end file = Redis = the last of each."""
    shell = workspace(tmp_path / "one", cluster.url)
    with running(shell), store_at(cluster.url) as store:
        heard: dict[str, list[int]] = {agent: [] for agent in AGENTS}
        with Subscription(store) as events:
            with Writer(shell, AGENTS[:15]) as one, Writer(shell, AGENTS[15:]) as two:
                wait_until(lambda: one.count > 30 and two.count > 30, seconds=40, what="writes before")
                for agent in AGENTS[:10] + AGENTS[:3]:
                    cluster.move(slot_of(agent), count=1)
                before = one.count, two.count
                wait_until(lambda: (one.count, two.count) > before, seconds=40, what="writes after")
            acks = one.acks | two.acks
            last = {agent: {"n": found[-1].n} for agent, found in acks.items()}
            wait_until(lambda: in_file(shell) == last, seconds=40, what="the last writes in the file")
            assert in_redis(cluster.url) == last
            versions = store.versions(AGENTS)
            while heard != {agent: list(range(1, versions[agent] + 1)) for agent in AGENTS}:
                event = events.next_event(5)
                assert event, f"{sum(map(len, heard.values()))} of {sum(versions.values())} events"
                heard[event.agent].append(event.version)
        kept = history(cluster.url, acks)
        assert all([event.version for event in kept[agent]] == list(range(1, versions[agent] + 1)) for agent in AGENTS)


@pytest.mark.parametrize("one_cluster", ["bundled"], indirect=True)
def test_the_command_line_works_on_a_cluster(cluster: Sharded, tmp_path: Path) -> None:
    """Each verb that reads or writes live memory."""
    shell = workspace(tmp_path / "one", cluster.url)
    for agent in AGENTS[:6]:
        shell.write_manifest(agent, role="worker")
    assert shell("diff").code == 1
    assert shell("apply").code == 0
    assert shell("set", "agent1", "n=7").code == 0
    assert shell("get", "agent1").json["context"] == {"role": "worker", "n": 7}
    assert shell("apply").code == 0 and in_file(shell)["agent1"] == {"role": "worker", "n": 7}
    assert shell("history", "agent1").out.count("context_update") == 2
    assert cluster.url in shell("status").out
    assert shell("delete", "agent2").code == 0
    assert shell("get", "agent2").code == 1

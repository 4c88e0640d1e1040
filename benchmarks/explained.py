"""What stands in the way of a goal that is missed: profiled by hand, printed into docs/performance.md by its row.

The key is (group, ours, theirs) of the row. A text for a goal that is met is kept and not shown. Times are of the
machine it was profiled on, and say how large each part is, no more.
"""

from __future__ import annotations

EXPLAINED: dict[tuple[str, str, str], str] = {
    ("update", "hub", "bare"): (
        "Of a call's 88 µs 36 are the client's, less than half of redis-py's own pipeline, and 50 the server's, "
        "where HSET and PUBLISH take 20. A script that does nothing is at 0.46 of the bare pipeline; one that "
        "makes the same writes (hash, stamps, version, history, event) without merging is at 0.90. The rest, some "
        "24 µs with cold caches, is the merge in Lua, which reads stamps and context before it writes; the goal "
        "leaves 5 µs for it."
    ),
    ("batch", "hub", "bare"): (
        "The client is not in the way: 29 µs a write, where redis-py takes 40. The server is: 65 µs a write in the "
        "merge script, where HSET and PUBLISH take 5. Nothing is waited for within a pipeline, so that the script "
        "is all there is to see; measured on a loaded machine, on which the whole ratio was 2.2."
    ),
    ("event", "hub", "bare"): (
        "On one processor all parts add up. CPU for each event, of the hub and of the bare row: server 200 and 75 "
        "µs (the merge script, the history's entry, the larger event), listener 200 and 130 (it parses the event, "
        "looks for holes and repetitions in the versions, and calls back; the bare one hands the bytes on), writer "
        "260 and 270."
    ),
    ("event", "hub", "nats"): (
        "The same parts as beside bare redis-py. The goals assume that NATS takes twice the time of bare HSET and "
        "PUBLISH; here it takes 1.9 to 2.6 times, so this one is met where that one is."
    ),
    ("event", "hub", "etcd"): (
        "The parts are those beside bare redis-py. etcd takes 3.3 times what that takes, so the goal asks for the same "
        "as that one."
    ),
    ("paths", "raw", "keyspace"): (
        "The bare row reads the hash and forgets it. A raw write is adopted: when it has been quiet, a round reads "
        "the agent, merges it with what the files say, and then stamps the value and publishes the event in one "
        "script; base is committed behind that, where nothing but Redis says anything. It takes 1.2 ms of CPU in this "
        "process until the script has answered (2.4 when base was committed first; both beside much other work), and "
        "two round trips. Of the look before the script reading Redis is the largest part, then the sources, of which "
        "context.json, a moment old, is read once more, merging and comparing, and what base remembers."
    ),
    ("paths", "edit", "sync"): (
        "inotify names the file, and the worker has the edit half a millisecond later (3 ms when the folders were "
        "looked at first). The rest is a round, 2.2 ms of CPU, and base, which it commits to disk before it "
        "publishes, so that a crash is told from an edit: a rollback journal takes five syncs. The goal is one "
        "fsync and 5 ms, and an fsync takes a third of a millisecond where this was measured first."
    ),
    ("start", "--help", "pass"): (
        "`import click` alone is 3.9 to 4.2; the table of verbs, the options and the layout of the text are the "
        "rest, and nothing else is imported. Without bytecode files (PYTHONDONTWRITEBYTECODE) it is 6."
    ),
    ("start", "get", "import"): (
        "The program's own modules are a fifth of the time that redis and click take, most of it for the making of "
        "frozen dataclasses; YAML, jsonschema, rich and the watchers are not imported, nor is importlib.metadata, which"
        " redis-py would use to look up its version. Connecting, SQLite and reading are a tenth; at the end nothing is "
        "looked through for cycles, which takes a fifth of the bare row."
    ),
    ("hook", "hook", "redis-cli"): (
        "redis-cli starts, asks and ends within 4 to 14 ms, by what else the machine does; the hook's time does not "
        "change as much. A file is made, written and renamed in 60 µs on tmpfs, in 100 to 300 on a disk to which "
        "others write as well. A call makes 86 system calls, most of them zsh's own between two commands: what is left "
        "are the shell's options, settled so that no caller's matter, errors kept from the terminal, and the file."
    ),
    ("memory", "ours", "plain"): (
        "The three fields hold the same bytes. What is more, some 260 bytes for an agent of seven registers, is "
        "the sidecar: a key of its own, each register's name, two digests, once the writer, and the times, of which "
        "those that were made together with the agent take 2 bytes, others up to 10. It does not grow with the values; "
        "these are small, 477 bytes with their key. The prototype on which the goal rests had 811, and 1,190 with "
        "versions and stamps."
    ),
    ("change", "raw, crowd", "raw, 10"): (
        "What is read, merged and written to base and Redis is the one agent, and nothing with an entry for each "
        "agent is copied on the way: in a round of its own the agent is in Redis after 7 to 12 ms (of 100,000, other "
        "work beside it), as at ten. What grows is the file, and the new one is written behind the event."
    ),
    ("change", "manifest, crowd", "manifest, 10"): (
        "Each edit meets a daemon at rest. One that is made while a daemon of 100,000 agents is at the end of the "
        "round before (it syncs the folder, removes the file of 30 MB that was there, and commits base) waits for "
        "that, some 50 ms. The daemon does not read its own file once more (20 ms), and the pause after a round does "
        "not count where it was at rest for a quarter of a second before."
    ),
    ("change", "memory, crowd", ""): (
        "Eight fields each. Base's merged state is kept packed, some 0.35 KB (a text with values and times, beside "
        "names and writers that most agents have in common; what the file says shares it where it is equal), the "
        "file's text 0.35 in blocks of 100 records, and places, versions and names about 0.3; the first version of "
        "the file, against which old copies are judged, is compressed. The program itself is 40 MB, 0.4 KB of each. "
        "The rest is the interpreter's: a round over everything unpacks all agents and reads all of Redis at once, "
        "and memory in which any object lies that stayed is not given back."
    ),
    ("crowd", "nothing, crowd", "bare"): (
        "A round over no agent: the folder of manifests is listed, the file's identity compared, Redis asked for its "
        "epoch."
    ),
    ("dry", "again", "octodns"): (
        "It takes seven tenths of the CPU that it took (350 ms). Half of what is left are Python's start and imports, "
        "most of them what redis-py imports, a tenth this program's own; a sixth are the times of 10,000 files, a tenth"
        " the digest of what is compared, and a tenth the end of the process. Meanwhile the server digests 20,000 keys,"
        " in half of the time that it took (100 to 120 ms), since a raw HSET leaves no other trace. Nothing is parsed. "
        "octoDNS is faster here than the goal assumed: 5 s for 10,000 records."
    ),
    ("dry", "never seen", "yaml"): (
        "For each file 87 µs, where it was 115 and where the parser's own construction of documents takes 133: the C "
        "parser's events 43, our loop over them, which refuses what YAML 1.1 changes silently, 18, the check 12, "
        "reading 13. The rest are imports, a tenth of the whole, merging and comparing, and an eighth is putting "
        "10,000 new agents into words. The parser's row does none of that, and reads without a schema."
    ),
    ("read", "first", "bare"): (
        "HGETALL of all hashes 35 ms, last_update of each sidecar beside it, SCAN 11 to 23, 10 to 15 µs an agent "
        "to shape the record."
    ),
    ("read", "second", "first"): (
        "The caller gets a document of its own, 2.4 MB of objects that it may change: to build it from packed bytes "
        "takes 15 of the 25 ms (json.loads six times as long, copy.deepcopy twenty). What was asked of Redis and the "
        "file meanwhile is 1 ms. One percent of the first would be 3.6 ms."
    ),
}

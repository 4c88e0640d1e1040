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
        "PUBLISH; here it takes 1.9 times, so this one is met where that one is."
    ),
    ("event", "hub", "etcd"): (
        "On either side of the goal by what else the machine does; the parts are those beside bare redis-py."
    ),
    ("paths", "raw", "keyspace"): (
        "The bare row reads the hash and forgets it. A raw write is adopted: when it has been quiet, a round reads "
        "the agent, merges it with what the files say, commits the base to disk before anything is written (so "
        "that a crash is told from an edit), and then stamps the value and publishes the event in one script. A "
        "round in this process takes 4.8 ms, file and second commit included, which come after the event; in its "
        "profile reading is a fifth, the first commit a third, the script a tenth."
    ),
    ("paths", "edit", "sync"): (
        "The watcher looks for changes every 10 ms and waits until 10 ms have brought nothing more: most of the "
        "time. Half of that would cost most of a percent of a core at rest, for ever. The rest is a round, which "
        "commits the base to disk before it publishes."
    ),
    ("start", "--help", "pass"): (
        "`import click` alone is 3.9 to 4.2; the table of verbs, the options and the layout of the text are the "
        "rest, and nothing else is imported. Without bytecode files (PYTHONDONTWRITEBYTECODE) it is 6."
    ),
    ("start", "get", "import"): (
        "The program's own modules are a fifth of the time that redis and click take, most of it for the making of "
        "frozen dataclasses; YAML, jsonschema, rich and the watchers are not imported. Connecting, SQLite and "
        "reading are a tenth."
    ),
    ("hook", "hook", "redis-cli"): (
        "A file is made, written and renamed in 60 µs on tmpfs, in 100 to 300 on a disk to which others write as "
        "well. Settling the shell's options, so that no caller's matter, takes 10 µs, making sure of the modules "
        "10, finding the spool 20."
    ),
    ("memory", "ours", "plain"): (
        "The three fields hold the same bytes. What is more, some 470 bytes for an agent of seven registers, is "
        "the sidecar: a key of its own, and each register's name, time and writer. It does not grow with the "
        "values; these are small, 477 bytes with their key. The prototype on which the goal rests had 811, and "
        "1,190 with versions and stamps."
    ),
}

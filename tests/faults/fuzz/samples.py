"""Good inputs of every kind, small: fuzzing begins at what a parser takes."""

from __future__ import annotations

from pathlib import Path

from reconciler.sources.context_file import NEW
from reconciler.sources.yaml_text import write_document

_HERE = Path(__file__).resolve().parents[3] / "manifests"

JSON = (
    b'{"a": [1, -2.5e3, "x\\u0041", true, null], "b": {"c": {}}}',
    b'"\xc3\xa9"',
    b"12345678901234567890",
    b"[[],{}]",
)

YAML = (
    b"a: &x [1, 'two', \"three\"]\nb: *x\nc: {d: ~, e: 1.5e3}\n---\n- |\n  text\n- >-\n  more\n",
    b'%YAML 1.1\n---\n? key\n: value # comment\n"quoted \\u00e9": yes\n...\n',
)

MANIFESTS = (
    *(path.read_bytes() for path in sorted(_HERE.glob("*.yaml"))),
    b"apiVersion: reconciler/v1\nkind: Shared\nspec:\n  fields:\n    goals: {a: [1, two]}\n---\n"
    b"apiVersion: reconciler/v1\nkind: Agent\nmetadata: {name: mary, updated: '2025-11-12T08:00:00Z'}\n"
    b"spec: {status: busy, context: {a: 1, b: [x]}, fields: {insight: 'q', n: 1e5}}\n"
    b"policy: {status: pin, context.a: seed}\ncontextSchema: a.json\n",
)

CONTEXTS = (
    NEW.encode(),
    b'{"version":"1.0","agents":{"mary":{"status":"busy","context":{"a":1,"k":{"b":[1,2.50]}},"insight":"x"}}}',
    b'\xef\xbb\xbf{\r\n\t"agents" : {\r\n\t\t"gc": {"status": "a", "last_seen": "2025-11-12T08:00:00"},\r\n'
    b'\t\t"old": "idle", "text": {"context": "{\\"a\\": 1}"}\r\n\t},\r\n\t"paths": {"x": 1}, "goals": [1],\r\n'
    b'\t"last_update": "2025-11-12T08:00:00Z"\r\n}\r\n',
    b'{\n  "agents": {\n    "mary": {\n      "status": "busy",\n      "context": {\n        "a": "b"\n      }\n    }\n'
    b'  },\n  "current_sprint": {"name": "s"}\n}\n',
)

LIVE = (
    b'status\0busy\0context\0{"a":1,"b":"x"}\0last_update\x002025-11-12T08:00:00.000000Z\0insight\0q',
    b'status\0busy\0context\0{\n"a":1\n}\0n\0[1]\0last_update\x002025-11-12T08:00:00.000000Z\0sidecar\0version\x007\0'
    b"=context\0#\0.status\x005 s # a\0.context.a\x005 c - a\0.n\x006 j # raw\0.gone\x006 x - b\0"
    b".last_update\x001762934400000000 s - a",
    b'status\0busy\0context\0{\n"a":1\n}\0n\0[1]\0last_update\x002025-11-12T08:00:00.000000Z\0sidecar\0version\x007\0'
    b"by\x001762934400000000 a\0=\0#\0.status\x000 s #\0:a\x005\0.n\x006 j # raw\0.gone\x006 x -\0"
    b"@\x001762934400000000",
    b"sidecar\0version\x003\0.status\x005 s - a\0.context.a\x005 c - a\0.x\x006 x - a",
)

EVENTS = (
    b'{"agent":"mary","event":"context_update","timestamp":"2025-11-12T08:00:00.000000Z","data":{"status":"busy"}}',
    b'{"agent":"mary","event":"context_update","timestamp":"t","data":{"a":[1.0]},"v":1,"id":"mary:3","version":3,'
    b'"origin":"a@b","priority":"high","changes":[{"field":"status","old":null,"new":"busy"}],"x":{"y":1}}',
)

TIMES = (
    b"2025-11-12T08:00:00Z", b"2025-11-12T08:00:00.123456+07:00", b"2025-11-12 08:00", b"20251112T080000",
    b"2025-W46-3",
    b"1762934400", b"1762934400.5", b"1762934400123", b"1762934400123456", b"1762934400123456789", b"1e9",
    b"0001-01-01",
)  # fmt: skip

DROPS = (
    b"1762934400123456-4711\nreconciler-drop 1\0mary\0last_task\0text\0WO-1\0status\0status\0busy\0result\0json\0"
    b'{"a":1}\0bad\0json\0{\0raw\0base64\0/wA=\0end\0',
    b"1762934400123456-inbox-a_b\nreconciler-drop 1\0a.b\0k\0text\0\xc3\xa9\0end\0",
)

LETTERS = (b'mary_result_1762910748\n{"result": "success", "test": true, "at": "2025-11-12T08:00:00Z"}',
           b'a_b_c\n\xef\xbb\xbf{"k":{"a":[1]},"last_update":1762934400}\n')  # fmt: skip

SETTINGS = (
    write_document(
        {"redis": "redis://localhost:6379/0", "manifests": "m", "local_sections": ["paths"], "max_skew": 5,
        "history": 10,
         "cron": "*/5 * * * *", "quiet": 0.1, "tombstones": 30, "max_deletes": "30%", "first_run": "newer",
         "inbox": True,
         "writer": "a@b", "redis_password_file": "p", "interval": 60, "backups": 3}
    ).encode(),
    b"history: 5\n===\nREDIS_URL=redis+sentinel://:s@a:1,b:2/m/0\nRECONCILER_QUIET=0.5\nRECONCILER_TOMBSTONES=1.5\n"
    b"RECONCILER_LOCAL_SECTIONS=a, b\n--manifests=m\n--max-deletes=5\nREDIS_PASSWORD=x\nLUKA_SOT=/\n--root=~a",
    b"{}\n===\nREDIS_HOST=::1\nREDIS_PORT=6380\nRECONCILER_INBOX=1\nRECONCILER_MAX_SKEW=1e3\nRECONCILER_CRON=0 * * * *",
)  # fmt: skip

ADDRESSES = (
    b"redis://localhost:6379/0", b"rediss://user:se%2Fcret@host:6380/1?ssl_cert_reqs=none",
    b"unix:///run/redis.sock?db=1",
    b"unix://user:secret@/run/redis.sock", b"redis://[::1]:6379/0?password=secret&x=y", b"embedded:", b"localhost",
    b"6379",
    b"redis+sentinel://user:secret@a:1,b:2/mymaster/0?sentinel_username=u&sentinel_password=secret",
    b"redis+cluster://:secret@a:1,[::1]:2/",
)  # fmt: skip

SCHEMAS = (
    b'{"type":"object","properties":{"a":{"type":"integer","minimum":1},"b":{"$ref":"#/$defs/b"}},"required":["a"],'
    b'"additionalProperties":false,"$defs":{"b":{"enum":["x",1],"pattern":"^a"}}}\n{"a":0,"b":"y","c":[]}',
    b'{"$schema":"https://json-schema.org/draft/2020-12/schema","$id":"a","$anchor":"z","anyOf":[{"format":"date"},'
    b'{"items":{"multipleOf":0.5},"uniqueItems":true,"contains":{}}],"if":{},"then":{"$ref":"#z"}}\n[1,1,{"a":1}]',
)

"""What is fed to a target: samples with edits made to them, bytes of any kind, and documents that mean something.

The same `Edit`s come from Hypothesis (tests, which shrink them) and from a seeded `Random` (`storm`, which is fast).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple

from hypothesis import strategies as st

MAX_BYTES = 1 << 16
"""No input is longer: how costs grow is for `test_bombs`."""

TOKENS = (
    *(bytes([byte]) for byte in range(256)),
    b"", b"\0", b"\xef\xbb\xbf", b"\xff\xfe", b"\xc3", b"\xed\xa0\x80", b"\xe2\x80\xa8", b"\xc2\x85",
    b"\xf0\x9f\x99\x82",
    b"null", b"true", b"false", b"NaN", b"-Infinity", b"1e999", b"-0", b"1.0", b"1E+5", b"9" * 400, b"9" * 5_000,
    b"0x1f",
    b'"', b"\\", b'"\\ud800"', b'"\\ud83d\\ude42"', b'"\\u0000"', b"\\u002e", b'""', b"{}", b"[]", b"{", b"}", b"[",
    b"]",
    b"[" * 70, b"[" * 3_000, b'{"a":' * 70, b'{"a":' * 2_000, b",", b":", b": ", b"\n", b"\r\n", b"\t", b"  ", b"- ",
    b"? ",
    b"---\n", b"...\n", b"%YAML 1.1\n---\n", b"&a ", b"*a", b"&a [*a]", b"<<: ", b"!!python/object:os.system ",
    b"!!int ",
    b"! ", b"|\n", b">-\n ", b"# ", b"~", b".inf", b"2025-11-12", b"2025-11-12T08:00:00Z", b"2025-11-12T08:00:00",
    b"1762934400", b"1762934400123456", b"9999999999999999999", b"-1", b"\xd9\xa3", b"\xc2\xb2", b"status", b"context",
    b"context.", b"context.a", b"last_update", b"last_seen", b"agents", b"version", b"insight", b"metadata", b"name",
    b"policy", b"pin", b"seed", b"spec", b"fields", b"kind", b"Agent", b"Shared", b"labels", b"updated",
    b"contextSchema",
    b"mary", b"Mary", b"@shared", b"paths", b"=context", b"=", b"@", b"by", b".status", b":a", b"replayed",
    b'"replayed":false',
    b"changes", b"data", b"priority", b"_raw", b"_raw_reason", b"base64", b"json", b"text", b"end", b"$ref",
    b"#/$defs/a",
    b"redis://", b"unix://", b"redis+sentinel://", b"redis+cluster://", b"embedded:", b"@", b"?", b"#", b"//", b":0",
    b":65536",
    b"[::1]", b"[", b"%2F", b"%ff", b"%", b"--", b"-", b"--output", b"=", b"A" * 300,
)  # fmt: skip
"""What is put in: every byte, and the words at which parsers turn."""


class Edit(NamedTuple):
    """One change to a sample: what, where, how many bytes it takes, which token it brings."""

    kind: int
    at: int
    size: int
    token: int


def edited(data: bytes, edits: Iterable[Edit]) -> bytes:
    """The sample with the edits made to it."""
    for kind, at, size, token in edits:
        at %= len(data) + 1
        cut = data[at : at + size]
        match kind % 5:
            case 0:
                new = TOKENS[token % len(TOKENS)]
            case 1:
                new = TOKENS[token % len(TOKENS)] + cut
            case 2:
                new = b""
            case 3:
                new = cut + cut
            case _:
                other = token % (len(data) + 1)
                new = data[other : other + size]
        data = (data[:at] + new + data[at + len(cut) :])[:MAX_BYTES]
    return data


def random_input(random: Random, samples: Sequence[bytes]) -> bytes:
    """One of the samples, most of the time little changed."""
    data = samples[random.randrange(len(samples))]
    count = 1 + int(random.expovariate(0.5))
    return edited(data, (_random_edit(random) for _ in range(count)))


def _random_edit(random: Random) -> Edit:
    size = int(random.expovariate(0.2)) if random.random() < 0.9 else random.randrange(200)
    return Edit(random.randrange(5), random.randrange(1 << 16), size, random.randrange(1 << 16))


_NUMBERS = st.integers(0, 1 << 16)
EDITS = st.lists(st.builds(Edit, st.integers(0, 4), _NUMBERS, st.integers(0, 40), _NUMBERS), max_size=6)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def inputs(samples: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Edited samples, samples whose words are any JSON value, and bytes of any kind."""
    sample = st.sampled_from(list(samples))
    return st.one_of(
        st.builds(edited, sample, EDITS),
        st.builds(_filled, sample, VALUES, _NUMBERS),
        st.binary(max_size=300),
    )


def _filled(sample: bytes, value: object, which: int) -> bytes:
    """The sample with a JSON value in the place of one of its words."""
    words = [word for word in sample.replace(b"\0", b" ").split() if word.strip(b'{}[],:"')]
    text = json.dumps(value, ensure_ascii=which % 2 == 0).encode("utf-8", "surrogatepass")
    return sample.replace(words[which % len(words)].strip(b'{}[],:"'), text, 1) if words else text

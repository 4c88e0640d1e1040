"""Whether plain data has the shape that its schema demands: every problem at once, each with its place.

The schemas are files (`schemas/*.schema.json`, carried by the wheel), so that an editor and this program read
the same rules. Three annotations of them are ours: `errorMessage` (which editors show too) is the hint for a
broken rule, `x-unknown-key` the hint for a key that has no place there, and `writeOnly` marks a value that is
never quoted in a message.

The only door to jsonschema; it is imported inside functions, because that costs more than the rest of a short
command. Here must never be: reading an input, the network, a schema's rule said a second time in Python, or a
message that holds a whole input or a password.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from .errors import InputError, NotFound, Place, Problem
from .state import NotJson, decode

Steps = tuple[str | int, ...]
"""The way into plain data: keys and list positions (from 0); () is the whole of it."""

Locate = Callable[[Steps], tuple[Place, str]]
"""Where the steps lead in the source: the place of a member's key (or a list's item), and that line's text.

Only asked for what is there. A live hash, which has no lines, gives its key and "".
"""

DRAFT = "https://json-schema.org/draft/2020-12/schema"
MAX_PROBLEMS = 100
MAX_SEEN = 1_000
"""As many errors of one input are looked at, so that a hopeless input costs bounded time."""
MAX_LINE = 20_000
"""A longer line is not kept for the caret: a minified file of megabytes would be copied for each problem."""

_NAMES = ("manifest", "context", "event", "settings", "plan")
_RECORD = "record"
_SUFFIX = ".schema.json"
_WIDTH = 100
_SECRET = re.compile(r"""(?i)(://[^/\s@]{0,64}?:)([^\s"]{1,256})(?=@)|(password["']?\s*[:=]\s*)(\S.*)""")


def schema_names() -> tuple[str, ...]:
    """The schemas there are; `validate` also knows `record`, one agent's record inside `context`."""
    return _NAMES


def schema_text(name: str) -> str:
    """A schema's file as it is. Raises NotFound for a name that is none."""
    if name not in _NAMES:
        known = ", ".join(_NAMES)
        raise NotFound(f"no schema {_quote(name)}", hint=_suggest(name, _NAMES) or f"there are {known}")
    inside = Path(__file__).parent / "schemas"
    folder = inside if inside.is_dir() else Path(__file__).parent.parent / "schemas"
    return (folder / (name + _SUFFIX)).read_text("utf-8")


def validate(name: str, value: object, locate: Locate, *, source: str, agent: str | None = None) -> list[Problem]:
    """Everything that is wrong with plain data (JSON's types only), sorted by place; [] is valid.

    `name` is one of `schema_names()` or "record". `agent` is noted on each problem; without it a problem
    inside a record of `context` notes that record's agent. Beyond the first 100 problems one more says how
    many are left: a caller that goes on with the good agents validates each record by itself.
    """
    found, complete = _findings(_validator(name), value)
    problems = [_problem(name, finding, locate, agent) for finding in found]
    problems.sort(key=lambda one: (one.place.line, one.place.column, one.path, one.message))
    if len(problems) > MAX_PROBLEMS:
        left = f"{'' if complete else 'at least '}{len(problems) - MAX_PROBLEMS} more problems"
        problems[MAX_PROBLEMS:] = [Problem(Place(source), f"and {left}", agent=agent)]
    return problems


def _problem(name: str, finding: _Finding, locate: Locate, agent: str | None) -> Problem:
    place, text = locate(finding.at)
    if agent is None and name == "context" and len(finding.at) > 1 and finding.at[0] == "agents":
        agent = str(finding.at[1])
    shown = _SECRET.sub(_mask, text) if len(text) <= MAX_LINE else ""
    return Problem(place, finding.message, finding.hint, dotted(finding.steps), agent, text=shown)


def _mask(found: re.Match[str]) -> str:
    """Hide a password on a quoted line without moving what follows it."""
    return (found[1] or found[3]) + "*" * len(found[2] or found[4])


def dotted(steps: Steps) -> str:
    """`spec.context.role`, `changes[0].by`, `agents['a.b'].status`; "" for the whole."""
    text = ""
    for step in steps:
        if isinstance(step, int):
            text += f"[{step}]"
        elif re.fullmatch(r"[\w@-]{1,64}", step):
            text += f".{step}" if text else step
        else:
            text += f"[{_quote(step)}]"
    return text


class ContextCheck:
    """A contextSchema that somebody wrote (draft 2020-12), ready to check contexts with.

    `text` is the file's content, `source` its name for messages. References lead only to places inside it;
    nothing is ever fetched. Raises InputError for a text that is no such schema.
    """

    def __init__(self, text: str, source: str) -> None:
        schema = _read_schema(text, source)
        draft = _jsonschema().Draft202012Validator
        found, _ = _findings(_make(draft.META_SCHEMA, format_checker=draft.FORMAT_CHECKER), schema)
        if not found:
            found = list(_lost_references(schema))
        if found:
            raise InputError(
                *(Problem(Place(source), one.message, one.hint, dotted(one.steps)) for one in found[:MAX_PROBLEMS])
            )
        self.source = source
        self._validator = _make(schema)

    def check(self, value: object) -> list[tuple[Steps, str]]:
        """What is wrong with a context, as (steps into it, message), at most 100; [] satisfies the schema."""
        try:
            found, _ = _findings(self._validator, value)
        except RecursionError:
            return [((), f"{self.source} refers to itself without end")]
        return [(one.steps, "; ".join(filter(None, (one.message, one.hint)))) for one in found[:MAX_PROBLEMS]]


def caret(problem: Problem) -> str:
    """The source line and a `^` under the column, for a terminal; "" when there is no line to show."""
    if not problem.text.strip() or problem.place.column < 1:
        return ""
    line = "".join(char if char.isprintable() else " " for char in problem.text.rstrip())
    column = min(problem.place.column - 1, len(line))
    start = max(0, min(column - _WIDTH // 2, len(line) - _WIDTH))
    shown = line[start : start + _WIDTH]
    head = "…" if start else ""
    tail = "…" if start + _WIDTH < len(line) else ""
    return f"{head}{shown}{tail}\n{' ' * _cells(head + shown[: column - start])}^"


def _cells(text: str) -> int:
    """How many terminal cells a text takes: none for a combining mark, two for a wide character."""
    return sum(
        0 if unicodedata.category(char) in ("Mn", "Me") else 1 + (unicodedata.east_asian_width(char) in "WF")
        for char in text
    )


class _Finding(NamedTuple):
    """One problem before it has a place: `at` leads to what the place points at, `steps` to what is named."""

    steps: Steps
    at: Steps
    message: str
    hint: str


def _findings(validator: Any, value: object) -> tuple[list[_Finding], bool]:
    """What is wrong, in the order of the input's keys where that is known, and whether that is all."""
    errors = validator.iter_errors(value)
    seen: dict[_Finding, None] = {}
    told: set[tuple[Steps, Steps]] = set()
    for error in islice(errors, MAX_SEEN):
        best = _deepest(error)
        rule = (tuple(best.absolute_path), tuple(best.absolute_schema_path))
        if rule not in told or "propertyNames" in rule[1]:
            told.add(rule)
            seen.update(dict.fromkeys(_explain(best)))
    return list(seen), next(errors, None) is None


def _deepest(error: Any) -> Any:
    """Of the ways in which `anyOf` or `oneOf` failed, the one that was nearest to right."""
    return _jsonschema().exceptions.best_match([error]) if error.context else error


def _explain(error: Any) -> Iterator[_Finding]:
    steps: Steps = tuple(error.absolute_path)
    schema = error.schema if isinstance(error.schema, Mapping) else {}
    given = schema.get("errorMessage")
    hint = given if isinstance(given, str) else ""
    if "propertyNames" in error.absolute_schema_path and isinstance(error.instance, str):
        yield _Finding(steps, (*steps, error.instance), f"the key {_quote(error.instance)} is not allowed", hint)
    elif error.validator == "additionalProperties":
        for key in _unknown(error.instance, schema):
            yield _Finding(steps, (*steps, key), f"unknown key {_quote(key)}", _place_for(key, schema))
    elif error.validator == "required":
        for key in error.validator_value:
            if key not in error.instance:
                yield _Finding(steps, steps, f"missing {_quote(key)}", hint)
    elif error.validator == "dependentRequired":
        for key, needed in error.validator_value.items():
            for lacking in needed if key in error.instance else ():
                if lacking not in error.instance:
                    yield _Finding(steps, steps, f"missing {_quote(lacking)}, which {_quote(key)} needs", hint)
    else:
        message, way_out = _broken(error, secret=bool(schema.get("writeOnly")))
        yield _Finding(steps, steps, message, hint or way_out)


def _unknown(instance: Mapping[str, object], schema: Mapping[str, Any]) -> list[str]:
    known, patterns = schema.get("properties", {}), schema.get("patternProperties", {})
    return [key for key in instance if key not in known and not any(re.search(p, key) for p in patterns)]


def _place_for(key: str, schema: Mapping[str, Any]) -> str:
    known = list(schema.get("properties", {}))
    return _suggest(key, known) or schema.get("x-unknown-key") or (f"known are {_list(known)}" if known else "")


def _broken(error: Any, *, secret: bool) -> tuple[str, str]:
    """The message and the way out for a value that breaks one rule."""
    rule, wanted, value = error.validator, error.validator_value, error.instance
    if rule == "type":
        return _wrong_type([wanted] if isinstance(wanted, str) else wanted, value, secret)
    shown = "the value" if secret else _show(value)
    if rule is None:  # the schema `false`
        return f"{shown} is not allowed", ""
    if rule in ("enum", "const"):
        return f"unknown value {shown}", _one_of(value, wanted if rule == "enum" else [wanted])
    if rule in ("unevaluatedProperties", "unevaluatedItems"):
        return _clip(error.message, 100), ""
    if rule in ("minLength", "minItems", "minProperties") and not value:
        return "must not be empty", ""
    if rule == "pattern" and "errorMessage" in error.schema:
        return f"{shown} is not valid", ""
    return f"{shown} {_SAID.get(rule, f'breaks the rule {rule!r}').format(_show(wanted))}", ""


_SAID = {
    "pattern": "does not have the form {}",
    "format": "does not have the format {}",
    "minimum": "is less than {}",
    "exclusiveMinimum": "is not more than {}",
    "maximum": "is more than {}",
    "exclusiveMaximum": "is not less than {}",
    "multipleOf": "is not a multiple of {}",
    "minLength": "is shorter than {} characters",
    "maxLength": "is longer than {} characters",
    "minItems": "has fewer than {} items",
    "maxItems": "has more than {} items",
    "uniqueItems": "has an item twice",
    "minProperties": "has fewer than {} keys",
    "maxProperties": "has more than {} keys",
    "items": "has too many items",
    "contains": "lacks an item that must be there",
    "anyOf": "fits none of the allowed forms",
    "oneOf": "does not fit exactly one of the allowed forms",
    "not": "is not allowed",
}

_KINDS = {
    "object": "an object", "array": "a list", "string": "a string", "number": "a number",
    "integer": "a whole number", "boolean": "true or false", "null": "null",
}  # fmt: skip


def _wrong_type(wanted: list[str], value: object, secret: bool) -> tuple[str, str]:
    shown, kind = _show(value), _kind(value)
    found = kind if secret or shown == kind else f"{kind} ({shown})"
    quotes = isinstance(value, int | float) and "string" in wanted
    message = f"expected {' or '.join(_KINDS[kind] for kind in wanted)}, found {found}"
    return message, f'write it in quotes: "{shown}"' if quotes else ""


def _kind(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return "a string"
    if isinstance(value, int | float):
        return "a number"
    return "null" if value is None else "a list" if isinstance(value, list) else "an object"


def _one_of(value: object, allowed: list[object]) -> str:
    words = [word for word in allowed if isinstance(word, str)]
    near = _suggest(value, words) if isinstance(value, str) else ""
    return near or (f"write {_show(allowed[0])}" if len(allowed) == 1 else f"one of {_list(allowed)}")


def _suggest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'context'?`, or "" when nothing is near."""
    from difflib import get_close_matches

    by_lower = {name.lower(): name for name in known}
    near = get_close_matches(word.lower(), by_lower, 1) if len(word) <= 64 else []
    return f"did you mean {_quote(by_lower[near[0]])}?" if near else ""


def _list(values: list[Any]) -> str:
    return ", ".join(map(_show, values[:10])) + (f" and {len(values) - 10} more" if len(values) > 10 else "")


def _show(value: object) -> str:
    """A value in a message: a scalar, cut to 40 characters; of anything larger only what it is."""
    if isinstance(value, str):
        return _quote(value)
    if isinstance(value, int) and value.bit_length() > 128:
        return "a huge number"
    return json.dumps(value) if isinstance(value, bool | int | float) else _kind(value)


def _quote(text: str) -> str:
    return repr(_clip(text))


def _clip(text: str, width: int = 40) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _jsonschema() -> Any:
    import jsonschema

    return jsonschema


def _make(schema: Mapping[str, Any], **more: Any) -> Any:
    """A validator with a registry of its own, because jsonschema's default one fetches from the network."""
    from referencing import Registry

    return _jsonschema().Draft202012Validator(schema, registry=Registry(), **more)


@cache
def _validator(name: str) -> Any:
    if name == _RECORD:
        return _make(json.loads(schema_text("context"))["$defs"][_RECORD])
    return _make(json.loads(schema_text(name)))


def _read_schema(text: str, source: str) -> dict[str, Any]:
    try:
        schema = decode(text)
    except NotJson as error:
        before = text[: error.position]
        line, column = before.count("\n") + 1, len(before) - before.rfind("\n")
        shown = text.split("\n")[line - 1]
        raise InputError(Problem(Place(source, line, column), str(error), text=shown)) from None
    if not isinstance(schema, dict):
        raise InputError(Problem(Place(source), f"a schema is an object, not {_kind(schema)}"))
    draft = schema.get("$schema", DRAFT)
    if not isinstance(draft, str) or draft.rstrip("#") != DRAFT:
        raise InputError(Problem(Place(source), f"{_show(draft)} is not read", f'write "$schema": "{DRAFT}"'))
    return schema


def _lost_references(schema: dict[str, Any]) -> Iterator[_Finding]:
    """The references of a schema that lead outside it, or nowhere."""
    from referencing import Registry
    from referencing.exceptions import Unresolvable
    from referencing.jsonschema import DRAFT202012

    resource = DRAFT202012.create_resource(schema)
    root: Registry[Any] = Registry()
    todo = [(resource, root.resolver_with_root(resource))]
    while todo:
        part, resolver = todo.pop()
        todo += [(child, resolver.in_subresource(child)) for child in part.subresources()]
        for word in ("$ref", "$dynamicRef"):
            target = part.contents.get(word, "#") if isinstance(part.contents, dict) else "#"
            try:
                resolver.lookup(target)
            except Unresolvable:
                hint = "only references inside the file are followed, such as '#/$defs/name'"
                yield _Finding((), (), f"{word} {_quote(target)} leads nowhere", hint)

"""The hooks: three zsh files in `tools/`, and a marked block in the dispatcher scripts that are there.

The files are the same in every workspace. The block makes the functions of `reconciler.zsh` known to a script; it
changes nothing else, also where that file is missing or the script is run by another shell.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Sequence
from importlib.resources import files as resources

from ..settings import Settings
from . import Target, Wanted, whole

FILES = {"reconciler.zsh": 0o644, "mary_memory_hook.zsh": 0o755, "rnd_memory_hook.zsh": 0o755}
SCRIPTS = ("mary_dispatcher.zsh", "mary_dispatcher_health_check.zsh", "rnd_consumer.zsh", "rnd_apply.zsh")
BLOCK = b"""\
# >>> reconciler hooks >>>  `reconciler uninstall hooks` takes these lines out; reconciler.zsh says what they give
if [ -n "${ZSH_VERSION-}" ]; then
  builtin emulate zsh -o no_aliases -o print_eight_bit -c '() { local d; for d in $1:a:h $1:A:h; do \
[[ ! -r $d/reconciler.zsh ]] || { source $d/reconciler.zsh; return; }; done; return 0; } "${(%):-%x}"'
fi
# <<< reconciler hooks <<<
"""
_MARKED = re.compile(rb"^# >>> reconciler hooks >>>.*?^# <<< reconciler hooks <<<[^\n]*(?:\n|\Z)", re.DOTALL | re.M)
_COMMENTS = re.compile(rb"(?:#[^\n]*(?:\n|\Z))*")


def insert(script: bytes | None) -> bytes | None:
    """A script with the block behind the comments it begins with; one that has it keeps it where it is."""
    if script is None:
        return None
    if _MARKED.search(script):
        return _MARKED.sub(lambda _: BLOCK, script, count=1)
    head = _COMMENTS.match(script)
    end = head.end() if head else 0
    joint = b"" if not end or script[:end].endswith(b"\n") else b"\n"
    return script[:end] + joint + BLOCK + script[end:]


def take_out(script: bytes) -> bytes:
    """A script without the block."""
    return _MARKED.sub(b"", script)


def template(name: str) -> bytes:
    """A file that is shipped to be installed."""
    return (resources(__package__) / "files" / name).read_bytes()


def _hook(name: str) -> bytes:
    data = template(name)
    zsh = "/bin/zsh" if os.path.exists("/bin/zsh") else shutil.which("zsh") or "/bin/zsh"
    return data.replace(b"#!/bin/zsh ", b"#!" + os.fsencode(zsh) + b" ", 1)


def _wanted(settings: Settings) -> Sequence[Wanted]:
    tools = settings.root / "tools"
    ours = [whole(tools / name, _hook(name), mode) for name, mode in FILES.items()]
    return ours + [Wanted(tools / name, insert, take_out) for name in SCRIPTS]


TARGET = Target("hooks", _wanted)

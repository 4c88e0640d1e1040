"""What stands under `Examples:` in the help of each verb: one or two command lines to copy."""

from __future__ import annotations

EXAMPLES = {
    "diff": ("reconciler diff mary", "reconciler diff -o json > plan.json"),
    "apply": ("reconciler apply", "reconciler apply --plan plan.json  # made by: reconciler diff -o json"),
    "run": ("reconciler run", "reconciler run --once --redis embedded:  # without a server"),
    "validate": ("reconciler validate", "reconciler validate manifests/mary.yaml"),
    "status": ("reconciler status", "reconciler status -o json"),
    "doctor": ("reconciler doctor -v", "reconciler doctor --fix"),
    "get": ("reconciler get mary", "reconciler get -o yaml"),
    "set": ("reconciler set mary status=busy last_task=deploy", "echo '{\"score\": 7}' | reconciler set mary --json -"),
    "record": (
        "reconciler record mary --task WO-1 --status completed --json result.json",
        "echo '[1, 2]' | reconciler record mary --json -",
    ),
    "delete": ("reconciler delete mary",),
    "watch": ("reconciler watch mary", "reconciler watch --since 2025-11-12T08:00 --event conflict -o json"),
    "history": ("reconciler history mary -n 3",),
    "rollback": ("reconciler rollback mary 41",),
    "explain": ("reconciler explain mary role",),
    "conflicts": ("reconciler conflicts mary", "reconciler conflicts --restore 3"),
    "export": ("reconciler export mary", "reconciler export --to copies"),
    "schema": ("reconciler schema manifest > manifest.schema.json",),
    "init": ("reconciler init ~/02luka",),
    "install": ("reconciler install hooks shim --dry-run", "reconciler install launchd"),
    "uninstall": ("reconciler uninstall launchd shim hooks",),
    "completion": ("reconciler completion zsh",),
}

"""Compares two configs field by field."""

import json

from r2rec_jax.runtime.errors import shown


def drift(there: dict, here: dict, ignored: tuple[str, ...] = ()) -> list[str]:
    """The differing fields, sorted by name, e.g. "train.steps (10 there, 20 here)".

    ignored: suffixes of dotted names that may differ.
    """
    before, now = _leaves(there), _leaves(here)
    return [
        f"{shown(name, 60)} ({shown(before.get(name, 'absent'), 60)} there, {now.get(name, 'absent')} here)"
        for name in sorted(before.keys() | now.keys())
        if before.get(name, "absent") != now.get(name, "absent") and not name.endswith(ignored)
    ]


def first(differing: list[str], most: int = 3) -> str:
    """The first `most` differences in one line, and the number of further ones."""
    more = f" and {len(differing) - most} more" if len(differing) > most else ""
    return ", ".join(differing[:most]) + more


def _leaves(tree: object, prefix: str = "") -> dict[str, str]:
    """{"train.steps": "10"}: JSON text of each leaf by its dotted name, so that 1 differs from true."""
    if not isinstance(tree, dict) or not tree:
        return {prefix: json.dumps(tree)}
    return {
        name: value
        for key, subtree in tree.items()
        for name, value in _leaves(subtree, f"{prefix}.{key}" if prefix else key).items()
    }

"""Which code may import which: the import rule of BUILD.md."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
# From top to bottom, as in BUILD.md: a room imports from those above it.
ROOMS = (
    "runtime",
    "data",
    "metrics",
    "chains",
    "prompts",
    "model",
    "pipeline",
    "rollout",
    "teachers",
    "train",
    "cli",
    "rank",
    "report",
    "faithful",
    "baselines",
    "performance",
    "runs",
    "bench",
)


def imports(folder: str) -> Iterator[tuple[Path, list[str]]]:
    """(file below the root, the imported module's name in parts) of every import in a folder."""
    for path in sorted((ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                # `from r2rec_jax import data` imports a room, `from r2rec_jax.data import x` from one.
                bare = node.module in ("r2rec_jax", "configs", "launch")
                names = [f"{node.module}.{alias.name}" for alias in node.names] if bare else [node.module]
            yield from ((path.relative_to(ROOT), name.split(".")) for name in names)


def test_rooms_import_from_rooms_above_them():
    assert set(ROOMS) == {path.parent.name for path in (ROOT / "r2rec_jax").glob("*/__init__.py")}
    for path, (top, *rest) in imports("r2rec_jax"):
        room = path.parts[1]
        assert top != "launch" and (top != "configs" or room in ("bench", "cli", "runs")), path
        if top == "r2rec_jax" and room in ROOMS:
            assert ROOMS.index(rest[0]) <= ROOMS.index(room), (path, rest)
            assert room != "model" or rest[0] in ("model", "runtime"), (path, rest)


def test_configs_import_declarations_alone():
    ours = [(path, names) for path, names in imports("configs") if names[0] in ("r2rec_jax", "launch")]
    for path, (top, room, module, *_) in ours:
        assert top == "r2rec_jax" and (module == "config" or room == "runtime"), path


def test_declarations_import_declarations_alone():
    """No array library is loaded for --help, nor for a config file."""
    for path, names in imports("r2rec_jax"):
        if path.name == "config.py" and names[0] == "r2rec_jax":
            assert (
                names[2] == "config"
                or names[1:3] in (["runtime", "fields"], ["runtime", "ranges"])
                or (names[1:3] == ["runtime", "errors"])
            ), (path, names)

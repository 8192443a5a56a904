"""Prints --help without importing the command, whose imports take seconds.

The help has the command's docstring and its flags. With --config=FILE[:PRESET] it also has every field of
that config with its value, range and description from its declaration.
"""

import ast
import re
import textwrap
from pathlib import Path

from absl import flags

from configs.declared import abouts
from r2rec_jax.cli import distributed_flags, overrides
from r2rec_jax.runtime.fields import About

KEY_FLAGS = ("config", "workdir", "overwrite")  # flags of all commands with a config
WIDTH = 110


def show(path: Path, arguments: list[str]) -> None:
    """Prints the help of the command in the file `path`, given `arguments`. Raises UserError for a --config
    that cannot be read."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    accepted = [*common_flags(tree), *own_flags(tree)]
    print(ast.get_docstring(tree) or path.stem, "\nFlags:\n", sep="\n")
    for flag in accepted:
        print(_line(f"--{flag.name}", _default(flag), flag.help))
    if "config" not in {flag.name for flag in accepted}:
        return
    if not (argument := overrides.config_argument(arguments)):
        print("\nWith --config=FILE, --help also lists every field of that config.")
        return
    config = overrides.read_config(argument)
    print(f"\nFields of {argument}, set by --config.FIELD=VALUE:\n")
    declared = abouts(config)
    for field, value in overrides.flatten(config).items():
        about = declared.get(field)
        print(_line(field, repr(value), *described(about)) if about else _line(field, repr(value)))


def described(about: About) -> list[str]:
    """The range of a field, if it has one, and its description."""
    return ([f"{about.range}."] if about.range else []) + [about.help]


def own_flags(tree: ast.Module) -> list[flags.Flag]:
    """The flags that a command's module defines.

    Executes only the module's statements that define flags, with the imports that these need.
    """
    defining = [node for node in tree.body if "flags.DEFINE_" in ast.unparse(node) and not _is_block(node)]
    used = {name.id for node in defining for name in ast.walk(node) if isinstance(name, ast.Name)}
    needed = [
        node
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and used.intersection(alias.name for alias in node.names)
    ]
    names = re.findall(r"flags\.DEFINE_\w+\('(\w+)'", "\n".join(map(ast.unparse, defining)))
    if not set(names) <= set(flags.FLAGS):  # otherwise the module has been imported
        exec(compile(ast.Module([*needed, *defining], []), "flags", "exec"), {"__name__": "flags"})
    return [flags.FLAGS[name] for name in names]


def _is_block(node: ast.stmt) -> bool:
    return isinstance(node, ast.FunctionDef | ast.ClassDef | ast.If)


def common_flags(tree: ast.Module) -> list[flags.Flag]:
    """The shared flags that the module's call of `command.run` or `run_plain` accepts."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call) and _is_run(node.func))
    if not (call := next(calls, None)):
        return []  # the module is no command
    given = {word.arg: ast.literal_eval(word.value) for word in call.keywords}
    if call.func.attr == "run_plain":
        names = given.get("takes", ("overwrite",))
    else:
        names = (*KEY_FLAGS, *(distributed_flags.NAMES if given.get("several_processes") else ()))
    return [flags.FLAGS[name] for name in names]


def _is_run(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute) and ast.unparse(node) in ("command.run", "command.run_plain")


def _default(flag: flags.Flag) -> str:
    return "" if flag.default is None else str(flag.default)


def _line(name: str, default: str, *about: str) -> str:
    head = f"  {name}" + (f" = {default}" if default else "")
    rest = textwrap.fill(" ".join(about), WIDTH, initial_indent="      ", subsequent_indent="      ")
    return f"{head}\n{rest}" if about else head

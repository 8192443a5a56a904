"""--help of every command: at once, without the command's imports, and with what these would define."""

import ast
import importlib
import os
import re
import subprocess
import sys
import time

import pytest
from absl import flags

from r2rec_jax.cli import help_text
from r2rec_jax.cli.overrides import flatten
from tests.configs.test_configs import build
from tests.launch.road import ROOT

COMMANDS = sorted(
    path.stem
    for path in (ROOT / "launch").glob("*.py")
    if "\nif __name__" in path.read_text(encoding="utf-8")
)


def help_of(*arguments: str) -> str:
    # GLIBC_TUNABLES: without it a command starts a second time, see runtime/environment.py.
    done = subprocess.run(
        [sys.executable, "-m", *arguments, "--help"],
        cwd=ROOT,
        env=os.environ | {"GLIBC_TUNABLES": ""},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_the_docstring_and_every_flag(name):
    path = ROOT / "launch" / f"{name}.py"
    text = help_of(f"launch.{name}")
    assert text.startswith(ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))))
    module = importlib.import_module(f"launch.{name}")
    own = {flag.name: flag for flag in flags.FLAGS.get_flags_for_module(module)}
    shown = {flag.name for flag in help_text.own_flags(ast.parse(path.read_text(encoding="utf-8")))}
    assert shown == own.keys()
    for flag in own.values():
        assert re.search(rf"^  --{flag.name}\b", text, re.MULTILINE), flag.name
        assert " ".join(flag.help.split()) in " ".join(text.split())


def test_help_of_a_config_has_every_field_with_value_range_and_help():
    start = time.monotonic()
    text = help_of("launch.train", "--config=configs/grpo.py:quickstart")
    assert time.monotonic() - start < 5  # 0.4 s on a quiet machine; the imports alone take 2
    for field, value in flatten(build("grpo", "quickstart")).items():
        assert f"\n  {field} = {value!r}\n" in text
    wanted = "a whole number from 1 to 2147483647. Prompts of a step; each has a group of completions."
    assert f"\n  train.batch_size = 16\n      {wanted}\n" in text


def test_a_field_that_nobody_declared_has_no_description(tmp_path):
    file = tmp_path / "own.py"
    lines = "from configs import sft", "def get_config():", " c = sft.get_config()", " c.mine = 3"
    file.write_text("\n".join((*lines, " return c")))
    assert "\n  mine = 3\n  model.attention" in help_of("launch.train", f"--config={file}")

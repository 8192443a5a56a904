"""The commands, `python -m launch.NAME`: flags, checks, wiring."""

import importlib
import importlib.util
import sys
from pathlib import Path

if sys.version_info < (3, 12) or not importlib.util.find_spec("absl"):
    print("error: this Python lacks the packages: run `make env` and `. .venv/bin/activate`", file=sys.stderr)
    sys.exit(2)

from r2rec_jax.cli import HELP
from r2rec_jax.runtime import environment

if sys.orig_argv[1:2] == ["-m"] and sys.orig_argv[2].startswith("launch."):
    path = Path(__file__).with_name(f"{sys.orig_argv[2].removeprefix('launch.')}.py")
    # Before the command's own imports, which take seconds.
    if path.is_file() and not set(HELP).isdisjoint(sys.orig_argv[3:]):
        sys.exit(importlib.import_module("r2rec_jax.cli.command").help_of(path))
    environment.settle(sys.orig_argv)

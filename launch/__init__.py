"""The commands, `python -m launch.NAME`: flags, checks, wiring."""

import sys

from r2rec_jax.runtime import process

if sys.orig_argv[1:2] == ["-m"] and sys.orig_argv[2].startswith("launch."):
    process.settle(sys.orig_argv)

"""A reader with every fault that the fuzzer looks for: what shows that it would find them."""

import os
import signal
import subprocess
import time
from random import Random

import numpy as np
import safetensors.numpy

from r2rec_jax.runtime.errors import UserError
from tests.fuzz.case import Target

# What the input asks for -> the kind of finding that it is; None: it is none.
FAULTS = {
    "refuse": None,
    "say nothing": "message",
    "raise": "KeyError",
    "break a promise": "AssertionError",
    "panic": "BaseException",
    "hang": "hang",
    "take memory": "MemoryError",
    "write": "reach",
    "write unseen": "reach",
    "look": "reach",
    "start a process": "reach",
    "run code": "reach",
    "die": "death",
    "read": None,  # last, where the input is that a worker warms up by
}


class Planted(Target):
    limit_s = 0.5

    def make(self, rng: Random) -> bytes:
        return rng.choice(list(FAULTS)).encode()

    def read(self, data: bytes) -> None:
        match data.decode():
            case "refuse":
                raise UserError("no: try another")
            case "say nothing":
                raise UserError("")
            case "raise":
                raise KeyError("a")
            case "break a promise":
                assert not data
            case "panic":
                raise BaseException("of a compiled library")
            case "hang":
                time.sleep(5)
            case "take memory":
                np.ones(1 << 30, np.float64)
            case "write":
                (self.folder.parent / "x").write_text("x")
                (self.folder.parent / "x").unlink()
            case "write unseen":  # by Python's audit hooks
                safetensors.numpy.save_file({"a": np.ones(2)}, self.folder.parent / "y")
            case "look":
                (self.folder / ".." / ".." / ".." / ".." / ".." / "stderr").read_bytes()
            case "start a process":
                subprocess.run(["true"], check=True)
            case "run code":
                exec(compile("1 + 1", "<a title>", "exec"))
            case "die":
                os.kill(os.getpid(), signal.SIGSEGV)

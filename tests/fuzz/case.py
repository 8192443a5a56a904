"""What a fuzzed reader looks like to the rest: bytes in, a good result or a UserError out."""

import abc
import importlib
from pathlib import Path
from random import Random

# name -> (class, cases of a million that it gets). Slow readers, those of duckdb, JAX and orbax, get fewer.
TARGETS = {
    "answer": ("text:Answer", 130_000),
    "plain": ("text:Plain", 100_000),
    "trace": ("text:Trace", 30_000),
    "reply": ("text:ServerReply", 130_000),
    "ml-1m": ("data:MovieLens1M", 60_000),
    "ml-100k": ("data:MovieLens100K", 60_000),
    "ml-csv": ("data:MovieLensCSV", 1500),
    "amazon-2023": ("data:Amazon2023", 1500),
    "amazon-2014": ("data:Amazon2014", 1500),
    "table-csv": ("data:TableCSV", 1500),
    "table-json": ("data:TableJSON", 1500),
    "table-parquet": ("data:TableParquet", 1500),
    "places": ("surroundings:Places", 1500),
    "types": ("surroundings:Types", 1500),
    "scales": ("surroundings:Scales", 20_000),
    "prepared": ("data:Prepared", 10_000),
    "flags": ("config:Flags", 5_000),
    "workdir": ("config:Workdir", 50_000),
    "stages": ("config:Stages", 60_000),
    "hf-config": ("model:HFConfig", 120_000),
    "hf-folder": ("model:HFFolder", 500),
    "safetensors": ("model:Safetensors", 60_000),
    "peft-config": ("model:PEFTConfig", 60_000),
    "peft-folder": ("model:PEFTFolder", 500),
    "tokenizer": ("model:Tokenizer", 10_000),
    "items": ("model:Items", 30_000),
    "checkpoint": ("model:Checkpoint", 300),
    "replies": ("logs:Replies", 40_000),
    "cache": ("logs:Cache", 40_000),
    "traces": ("logs:TraceFile", 20_000),
    "users": ("logs:Users", 40_000),
    "metrics": ("logs:Metrics", 40_000),
    "results": ("logs:Results", 20_000),
    "bench": ("logs:Bench", 40_000),
}


class Target(abc.ABC):
    """One reader. `folder` is its own: what it is given to read lies there, and nothing else may change."""

    limit_s = 5.0  # for one case

    def __init__(self, folder: Path):
        self.folder = folder

    @abc.abstractmethod
    def make(self, rng: Random) -> bytes:
        """An input: a valid one made odd."""

    @abc.abstractmethod
    def read(self, data: bytes) -> None:
        """Reads it, and asserts what the reader promises of a result. Raises UserError for bad input."""


def load(name: str, folder: Path) -> Target:
    """The target of that name, or of "module:Class" here."""
    module, _, kind = (TARGETS[name][0] if name in TARGETS else name).partition(":")
    return getattr(importlib.import_module(f"tests.fuzz.{module}"), kind)(folder)

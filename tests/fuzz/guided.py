"""Inputs chosen by the code of r2rec_jax that they reach, by atheris (libFuzzer), for readers in Python.

    python -m tests.fuzz.guided TARGET FINDINGS [-runs=N] [-seed=S] [other flags of libFuzzer]

It stops at the first finding and keeps its input in the folder FINDINGS, for `python -m tests.fuzz TARGET
--repeat=FILE`. Needs atheris (`pip install atheris`). What a compiled library does is not seen.
"""

import sys
import tempfile
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["r2rec_jax"]):
    from tests.fuzz.worker import MEMORY, judge, prepare

SEEDS = 200
LONGEST = 4096  # bytes of an input


def main(name: str, findings: str, *flags: str) -> None:
    kept = Path(findings).absolute()
    kept.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix="fuzz-"))
    with atheris.instrument_imports(include=["r2rec_jax"]):
        target, guard = prepare(name, scratch / "fence")
    corpus = scratch / "corpus"
    corpus.mkdir()
    for k in range(SEEDS):
        (corpus / str(k)).write_bytes(target.make(Random(f"{name} {k}"))[:LONGEST])
    judge(target, target.make(Random(0)), guard)  # imports and allocates what any case does
    guard.bound_memory(MEMORY)

    def read(data: bytes) -> None:
        kind, what = judge(target, data, guard)
        if kind not in ("read", "refused"):
            raise AssertionError(f"{kind}: {what}")

    own = [f"-max_len={LONGEST}", f"-artifact_prefix={kept}/", "-timeout=60", "-rss_limit_mb=0"]
    atheris.Setup([name, *own, *flags, str(corpus)], read)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*sys.argv[1:])

"""The same process with atheris (libFuzzer) choosing the inputs by the code of r2rec_jax that they reach.

For readers in Python: what a compiled library does is not seen. Inputs depend on what came before, so a
finding is repeated from its file and not from its number.
"""

import os
import sys
from pathlib import Path
from random import Random

import atheris

with atheris.instrument_imports(include=["r2rec_jax"]):
    from tests.fuzz.worker import MOST, Reader, prepare

SEEDS = 200
LONGEST = 4096


def main(name: str, seed: int, first: int, end: int, folder: Path) -> None:
    with atheris.instrument_imports(include=["r2rec_jax"]):
        target, guard = prepare(name, folder)
    corpus = folder / "corpus"
    corpus.mkdir()
    for k in range(SEEDS):
        (corpus / str(k)).write_bytes(target.make(Random(f"{seed} {name} {k}"))[:LONGEST])
    reader, number = Reader(target, guard, folder), first

    def read(data: bytes) -> None:
        nonlocal number
        reader.read(number, data)
        number += 1
        if number == end or reader.found == MOST:
            reader.end()
            os._exit(0)

    flags = [f"-runs={end - first}", f"-seed={seed + first + 1}", f"-max_len={LONGEST}", "-timeout=60"]
    atheris.Setup([name, *flags, "-rss_limit_mb=0", "-print_final_stats=1", str(corpus)], read)
    atheris.Fuzz()


if __name__ == "__main__":
    name, seed, first, end, folder = sys.argv[1:]
    main(name, int(seed), int(first), int(end), Path(folder))

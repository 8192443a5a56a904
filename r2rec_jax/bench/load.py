"""Loading a sharded checkpoint: time and peak memory compared with transformers' from_pretrained.

Both load bfloat16 files from the page cache, each time in a fresh process, and touch every page of the loaded
weights. Peak memory is VmHWM, the maximum resident size including mapped files. As bfloat16, transformers
maps the files without a copy, but this code changes the layout of every matrix to [in, out], stacked over
layers. As float32, both convert.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from r2rec_jax.bench.result import Row, row, run_peer
from r2rec_jax.model.architecture import LlamaConfig, to_hf
from r2rec_jax.model.huggingface import abstract_params, hf_tensors, load_params
from r2rec_jax.model.shards import write_tensors

REPEATS = 3
# Layers of Llama-8B with Llama 2's vocabulary: 4.0 GB in bfloat16, the largest tensor 262 MB.
FULL = LlamaConfig(32000, 4096, 14336, 8, 32, 8, 128, 1e-5, 500_000.0, None, 8192, False)
QUICK = LlamaConfig(1000, 256, 512, 2, 4, 2, 64, 1e-5, 500_000.0, None, 512, False)


def run(peers: str | None, quick: bool) -> list[Row]:
    config = QUICK if quick else FULL
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        write_checkpoint(Path(folder), config)
        for dtype in ("bfloat16", "float32"):
            ours, theirs = [], []
            for _ in range(1 if quick else REPEATS):
                ours.append(_load_in_process(folder, dtype))
                if peers is not None:
                    theirs.append(run_peer(peers, "load_transformers.py", folder, dtype))
            rows += _rows(config, dtype, ours, theirs)
    return rows


def _rows(config: LlamaConfig, dtype: str, ours: list[dict], theirs: list[dict]) -> list[Row]:
    count = sum(leaf.size for leaf in abstract_params(config).values())
    weights = count * jnp.dtype(dtype).itemsize / 1e6

    def compare(what: str, unit: str, value) -> Row:
        peer = [value(run) for run in theirs] or None
        return row(f"load {count / 5e8:.1f} GB as {dtype}: {what}", [value(run) for run in ours], peer, unit)

    return [
        compare("time", "s", lambda run: run["seconds"]),
        compare("peak memory", "MB", lambda run: run["peak_mb"]),
        compare("  above imports and weights", "MB", lambda run: run["peak_mb"] - run["before_mb"] - weights),
    ]


def write_checkpoint(folder: Path, config: LlamaConfig) -> None:
    """Writes a sharded Hugging Face folder of random bfloat16 weights, one parameter in memory at a time."""
    rng = np.random.default_rng(0)

    def leaves() -> Iterator[tuple]:
        for path, leaf in abstract_params(config).items():
            # Bit patterns below that of 1.0, which are all finite.
            bits = rng.integers(0, 0x3F80, leaf.shape, dtype=np.uint16)
            yield path, bits.view(ml_dtypes.bfloat16)

    (folder / "config.json").write_text(json.dumps(to_hf(config, torch_dtype="bfloat16")))
    write_tensors(folder, hf_tensors(leaves(), ml_dtypes.bfloat16))


def _load_in_process(folder: str, dtype: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", __name__, folder, dtype], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def _measure(folder: str, dtype: str) -> dict:
    jnp.zeros(()).block_until_ready()  # excludes the start of the backend from the measurement
    before = _peak_mb()
    start = time.perf_counter()
    _, params = load_params(folder, jnp.dtype(dtype))
    for leaf in jax.tree.leaves(params):
        np.asarray(leaf).reshape(-1)[::1024].sum()
    return {"seconds": time.perf_counter() - start, "before_mb": before, "peak_mb": _peak_mb()}


def _peak_mb() -> float:
    # getrusage's ru_maxrss is initialized with the parent's size, so it is not usable here.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) * 1024 / 1e6


if __name__ == "__main__":
    print(json.dumps(_measure(*sys.argv[1:])))

"""A LoRA SFT step compared with torch + peft, and the time from process start to the end of the first step.

Both sides load the same random float32 base and the same adapter on all seven linear layers. They train on
one batch without padding, with loss on responses (torch: labels of -100 on prompts). The fastest variant of
torch, which may be bfloat16, is compared with the faster of our two activation dtypes. Its eager float32
variant is compared with our float32. Loss and gradient norm of the first step must agree before timing.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np

from r2rec_jax.bench.models import DTYPES, LLAMA_25M, SMALLEST, random_tokens, run_config, write_models
from r2rec_jax.bench.result import (
    Row,
    fastest,
    paired_seconds,
    quickest,
    require_equal,
    row,
    run_peer,
    serving,
)
from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.completion import CompletionBatch
from r2rec_jax.model.policy import load_policy
from r2rec_jax.runtime.mesh import make_mesh, to_devices
from r2rec_jax.train.compile import place_state
from r2rec_jax.train.optimizer import make_optimizer
from r2rec_jax.train.state import TrainState
from r2rec_jax.train.supervised import compile_update

SCRIPT, PLAIN = "sft_peft.py", "eager,float32"
VARIANTS = [
    f"{mode},{dtype}" for mode in ("eager", "compiled") for dtype in ("float32", "bfloat16", "autocast")
]
COLD_S = 8.0
REPEATS = 3  # of fresh processes


def run(peers: str | None, quick: bool) -> list[Row]:
    config, (B, P, R) = (SMALLEST, (2, 12, 4)) if quick else (LLAMA_25M, (4, 384, 128))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder, config)
        write_batch(folder, config, B, P, R)
        rows = _steps(peers, folder, f"LoRA SFT step, {B} rows of {P} + {R} tokens", 3 if quick else 9)
        return rows + _first_steps(peers, folder, 1 if quick else REPEATS)


def write_batch(folder: Path, config: LlamaConfig, B: int, P: int, R: int) -> None:
    """Writes `folder/batch.npz`, the training batch of both sides."""
    prompt, response = random_tokens(config, B, P), random_tokens(config, B, R, seed=1)
    np.savez(folder / "batch.npz", prompt=prompt, response=response)


def make_step(folder: Path, dtype: str = "float32") -> Callable[[], dict]:
    """Returns a function that runs one step and returns its metrics."""
    config, mesh = run_config(folder, dtype=dtype), make_mesh()
    policy = load_policy(config.model, config.lora, mesh, seed=0)
    optimizer = make_optimizer(config.optimizer, 1)
    state = place_state(TrainState.create(policy.trainable, optimizer), mesh)
    update = compile_update(policy.model, optimizer, state, policy.frozen, mesh)
    prompt, response = (np.load(folder / "batch.npz")[name] for name in ("prompt", "response"))
    (B, P), mask = prompt.shape, np.ones(response.shape, np.float32)
    batch = to_devices(CompletionBatch(prompt, np.full(B, P, np.int32), response, mask), mesh)

    def step() -> dict:
        nonlocal state
        state, metrics = update(state, policy.frozen, batch)
        return jax.device_get(metrics)

    return step


def _steps(peers: str | None, folder: Path, name: str, repeats: int) -> list[Row]:
    steps = {dtype: make_step(folder, dtype) for dtype in DTYPES}
    first = {dtype: step() for dtype, step in steps.items()}
    ours = quickest(steps)
    if peers is None:
        seconds = {dtype: paired_seconds(steps[dtype], lambda: None, repeats)[0] for dtype in DTYPES}
        return [
            row(f"{name}, {ours}, torch + peft at its best", seconds[ours], None, "s", 1.1),
            row(f"{name}, {DTYPES[0]}, torch + peft {PLAIN}", seconds[DTYPES[0]], None, "s", 1.5),
        ]
    best = fastest(peers, SCRIPT, folder, VARIANTS)
    rows = []
    for dtype, variant, target, title in [
        (ours, best, 1.1, f"at its best ({best})"),
        (DTYPES[0], PLAIN, 1.5, PLAIN),
    ]:
        with serving(peers, SCRIPT, folder, variant) as peer:
            tolerance = 1e-3 if variant.endswith("float32") and dtype == "float32" else 5e-2
            require_equal("loss of the first step", first[dtype]["train/loss"], peer.hello["loss"], tolerance)
            norm = first[dtype]["train/grad_norm"]
            require_equal("its gradient's norm", norm, peer.hello["norm"], tolerance)
            seconds = paired_seconds(steps[dtype], peer.ask, repeats, consecutive=True)
        rows.append(row(f"{name}, {dtype}, torch + peft {title}", *seconds, "s", target))
    return rows


def _first_steps(peers: str | None, folder: Path, repeats: int) -> list[Row]:
    """Times of first steps in fresh processes: ours without and with a compilation cache, and the peer's."""
    cold, warm, theirs = [], [], []
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    _first_step(folder, cache)
    for _ in range(repeats):
        cold.append(_first_step(folder, {"JAX_ENABLE_COMPILATION_CACHE": "false"}))
        warm.append(_first_step(folder, cache))
        if peers is not None:
            theirs.append(run_peer(peers, SCRIPT, folder, PLAIN, time.time())["seconds"])
    name = "process start to the end of its first SFT step"
    return [
        row(f"{name}, against {COLD_S:g} s", cold, [COLD_S], "s", 1),
        row(f"{name}, compiled programs cached, torch + peft {PLAIN}", warm, theirs or None, "s", 0.83),
    ]


def _first_step(folder: Path, environment: dict[str, str]) -> float:
    done = subprocess.run(
        [sys.executable, "-m", __name__, str(folder), str(time.time())],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])["seconds"]


if __name__ == "__main__":
    make_step(Path(sys.argv[1]))()
    print(json.dumps({"seconds": time.time() - float(sys.argv[2])}))

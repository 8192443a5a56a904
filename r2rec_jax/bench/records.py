"""What the training loop costs a step, with all that it notes of itself, beside 1% of a step.

Ours is the time from one call of a stage's step to the next when the step does nothing: the batch, phases,
MFU, peak memory, the profiler's annotations, the line in metrics.jsonl, the progress bar. The peer is a
hundredth of a LoRA SFT step of the 25M model.
"""

import tempfile
import time
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from r2rec_jax.bench.models import LLAMA_25M, SMALLEST, write_models
from r2rec_jax.bench.result import Row, paired_seconds, row
from r2rec_jax.bench.sft import make_step, write_batch
from r2rec_jax.pipeline.batches import batches
from r2rec_jax.runtime.metric_writer import StepLog
from r2rec_jax.runtime.profiler import Phases
from r2rec_jax.train import loop
from r2rec_jax.train.state import TrainState

METRICS, PHASES = 40, ("rollout", "reward", "update")  # of a GRPO step, rounded up
BLOCK = 50  # steps whose mean is a measurement


def run(peers: str | None, quick: bool) -> list[Row]:
    del peers  # the peer is a step of ours
    config, sizes, repeats = (SMALLEST, (2, 12, 4), 3) if quick else (LLAMA_25M, (4, 384, 128), 7)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_models(folder, config)
        write_batch(folder, config, *sizes)
        step = make_step(folder)
        ours = loop_seconds(folder / "run", repeats)
        steps, _ = paired_seconds(step, lambda: None, repeats)
    title = f"records of a step, against 1% of an SFT step, {sizes[0]} rows of {sizes[1]} + {sizes[2]} tokens"
    return [row(title, ours, [seconds / 100 for seconds in steps], "s", 1.0)]


class _Ones:
    def __len__(self) -> int:
        return 8

    def __getitem__(self, k: int) -> np.ndarray:
        return np.ones(4, np.float32)


def loop_seconds(workdir: Path, repeats: int) -> list[float]:
    """Seconds from one step to the next of `train.loop.run`: means of `repeats` blocks of `BLOCK` steps."""
    # The first block is warm-up.
    train = {"steps": BLOCK * (repeats + 1) + 1, "log_every": 1, "checkpoint_every": 1 << 30}
    train |= {"evaluate_every": 1 << 30, "best_metric": "", "patience": 0, "stop_after_skipped": 5}
    config = ConfigDict({"stage": "records", "train": train, "profile": {"steps": ""}})
    phases, notes, calls = Phases(), StepLog(workdir / "notes.jsonl"), []
    metrics = {f"metric/number_{k}": float(k) for k in range(METRICS)}

    def advance(state, batch, step):
        calls.append(time.perf_counter())
        for name in PHASES:
            with phases(name):
                pass
        notes.append(step, metrics)
        return (
            state,
            metrics | {"train/token_count": 1.0, "train/seconds_at_peak": 1.0, "train/skipped_count": 0.0},
            batch,
        )

    state = TrainState.create({"w": jnp.zeros(2)}, optax.sgd(1.0))
    examples = batches(_Ones(), batch_size=2, seed=0, shuffle=True, to_batch=np.stack)
    loop.run(
        config.train,
        workdir,
        state,
        examples,
        advance,
        phases,
        logs=(notes,),
        stage="bench",
        record=config.to_dict(),
    )
    return (np.diff(calls[::BLOCK])[1:] / BLOCK).tolist()

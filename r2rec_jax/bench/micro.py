"""Micro-benchmarks of attention, the loss head and the loop's overhead, each a suite of launch.bench.

Loading of weights is in load.py, because the process whose memory it measures must import nothing else.
"""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from r2rec_jax.bench.models import LLAMA_25M, SMALLEST, write_models
from r2rec_jax.bench.result import Row, paired_seconds, row
from r2rec_jax.bench.sft import make_step, write_batch
from r2rec_jax.model.attention import Prefix, attend
from r2rec_jax.model.logprobs import token_logprobs
from r2rec_jax.pipeline.batches import batches
from r2rec_jax.runtime.metric_writer import StepLog
from r2rec_jax.runtime.profiler import Phases
from r2rec_jax.train import loop
from r2rec_jax.train.state import TrainState

HEADS, KV_HEADS, WIDTH = 8, 4, 64  # shape of the attention
CHUNK = 512  # tokens per chunk of the loss head
METRICS, PHASES = 40, ("rollout", "reward", "update")  # as in a GRPO step, rounded up
BLOCK = 50  # steps of the loop per measurement


def attention(peers: str | None, quick: bool) -> list[Row]:
    """Attention, forward and backward, compared with jax.nn.dot_product_attention on the same device."""
    del peers  # the peer is part of JAX
    rows = []
    for N, T in [(2, 64)] if quick else [(4, 512), (4, 1024)]:
        arrays = _arrays((N, T, HEADS, WIDTH), *[(N, KV_HEADS, T, WIDTH)] * 2)
        rows += _attention_rows(f"causal, {N} rows of {T}", attend, _causal, arrays)
    B, G, P, T = (1, 2, 64, 32) if quick else (2, 8, 512, 128)
    arrays = _arrays(
        (B * G, T, HEADS, WIDTH), *[(B * G, KV_HEADS, T, WIDTH)] * 2, *[(B, KV_HEADS, P, WIDTH)] * 2
    )
    name = f"{B} prompts of {P}, {G} rows of {T} each"
    return rows + _attention_rows(name, _over_prompts, _repeated_prompts, arrays)


def _arrays(*shapes: tuple[int, ...]) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def _causal(q_NTHA, k_NKTA, v_NKTA):
    return jax.nn.dot_product_attention(q_NTHA, k_NKTA.swapaxes(1, 2), v_NKTA.swapaxes(1, 2), is_causal=True)


def _over_prompts(q, k, v, prompt_k_BKPA, prompt_v_BKPA):
    B, _, P, _ = prompt_k_BKPA.shape
    return attend(q, k, v, Prefix(prompt_k_BKPA, prompt_v_BKPA, jnp.full(B, P)))


def _repeated_prompts(q, k, v, prompt_k_BKPA, prompt_v_BKPA):
    """Attention without shared prompts: the prompt's keys are copied before each row's own keys."""
    T, P = q.shape[1], prompt_k_BKPA.shape[2]
    samples = len(q) // len(prompt_k_BKPA)

    def all_keys(prompt, own):
        return jnp.concatenate([jnp.repeat(prompt, samples, axis=0), own], axis=2).swapaxes(1, 2)

    mask = jnp.tri(T, P + T, P, dtype=bool)[None, None]
    keys, values = all_keys(prompt_k_BKPA, k), all_keys(prompt_v_BKPA, v)
    return jax.nn.dot_product_attention(q, keys, values, mask=mask)


def _attention_rows(name: str, ours: Callable, peer: Callable, arrays: list[jax.Array]) -> list[Row]:
    def with_loss(function: Callable) -> Callable:
        return lambda *arrays: jnp.sum(jnp.sin(function(*arrays)))

    which = tuple(range(len(arrays)))
    gradients = [jax.value_and_grad(with_loss(function), which) for function in (ours, peer)]
    return _time_and_memory(name, *gradients, arrays)


def loss_head(peers: str | None, quick: bool) -> list[Row]:
    """Log-probabilities of tokens with a frozen head, and d hidden.

    Compared with automatic differentiation through all logits at once, and through recomputed chunks.
    """
    del peers  # the peers are defined below
    M, D, V = (64, 16, 128) if quick else (4096, 384, 16_000)
    rng = np.random.default_rng(0)
    hidden_MD = jnp.asarray(rng.normal(size=(M, D)), jnp.float32)
    head_DV = jnp.asarray(rng.normal(size=(D, V)) / D**0.5, jnp.float32)
    tokens_M = jnp.asarray(rng.integers(0, V, M), jnp.int32)

    def ours(hidden_MD, head_DV, tokens_M):
        return token_logprobs(hidden_MD, head_DV, tokens_M, jnp.ones(M), chunk=CHUNK)

    rows = []
    for name, peer in [("all logits", _dense), ("recomputed chunks", _recomputed)]:
        gradients = [jax.value_and_grad(_summed(function), has_aux=True) for function in (ours, peer)]
        arrays = [hidden_MD, head_DV, tokens_M]
        rows += _time_and_memory(f"{M} tokens, against {name}", *gradients, arrays)
    return rows


def _dense(hidden_MD, head_DV, tokens_M):
    logits = hidden_MD @ head_DV
    logprobs = jax.nn.log_softmax(logits)
    entropy = -jnp.sum(jnp.exp(logprobs) * logprobs, axis=-1)
    return jnp.take_along_axis(logprobs, tokens_M[:, None], axis=-1)[:, 0], jax.lax.stop_gradient(entropy)


def _recomputed(hidden_MD, head_DV, tokens_M):
    chunk = min(CHUNK, len(tokens_M))
    chunks = (hidden_MD.reshape(-1, chunk, hidden_MD.shape[1]), tokens_M.reshape(-1, chunk))
    logprobs, entropy = jax.lax.map(jax.checkpoint(lambda each: _dense(each[0], head_DV, each[1])), chunks)
    return logprobs.reshape(-1), entropy.reshape(-1)


def _summed(function: Callable) -> Callable:
    def loss(hidden_MD, head_DV, tokens_M):
        logprobs, entropy = function(hidden_MD, head_DV, tokens_M)
        return logprobs.sum(), entropy

    return loss


def _time_and_memory(name: str, ours: Callable, peer: Callable, arrays: list[jax.Array]) -> list[Row]:
    """Seconds of two functions of `arrays`, and their temporary memory as planned by XLA."""
    compiled = [jax.jit(function).lower(*arrays).compile() for function in (ours, peer)]
    seconds = paired_seconds(*(lambda c=c: jax.block_until_ready(c(*arrays)) for c in compiled))
    memory = [[c.memory_analysis().temp_size_in_bytes / 1e6] for c in compiled]
    return [row(f"{name}: time", *seconds, "s"), row(f"{name}: memory", *memory, "MB")]


def records(peers: str | None, quick: bool) -> list[Row]:
    """Overhead of the training loop per step, including all logging, compared with 1% of a training step.

    Ours is the time between calls of a step function that does nothing: the batch, phases, MFU, peak memory,
    profiler annotations, the line in metrics.jsonl and the progress bar. The peer is 1/100 of a LoRA SFT step
    of the 25M model.
    """
    del peers  # the peer is a step of this code
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
    """Seconds between steps of `train.loop.run`: means of `repeats` blocks of `BLOCK` steps."""
    # One more block is run for warm-up.
    train = {"steps": BLOCK * (repeats + 1) + 1, "log_every": 1, "checkpoint_every": 1 << 30}
    train |= {"evaluate_every": 1 << 30, "best_metric": "", "patience": 0, "stop_after_skipped": 5}
    phases, notes, calls = Phases(), StepLog(workdir / "notes.jsonl"), []
    metrics = {f"metric/number_{k}": float(k) for k in range(METRICS)}

    def advance(state, batch, step):
        calls.append(time.perf_counter())
        for name in PHASES:
            with phases(name):
                pass
        notes.append(step, metrics)
        counted = {"train/token_count": 1.0, "train/seconds_at_peak": 1.0, "train/skipped_count": 0.0}
        return state, metrics | counted, batch

    state = TrainState.create({"w": jnp.zeros(2)}, optax.sgd(1.0))
    examples = batches(_Ones(), batch_size=2, seed=0, shuffle=True, to_batch=np.stack)
    section = ConfigDict(train)
    loop.run(section, workdir, state, examples, advance, phases, logs=(notes,), stage="bench", record={})
    return (np.diff(calls[::BLOCK])[1:] / BLOCK).tolist()

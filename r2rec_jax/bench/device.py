"""Training, decoding and evaluation programs of a model with random weights on the current device.

The `peer` of a row is a target value for Llama-3-8B on one H200 or A100. `limit` is the ratio that the card's
arithmetic or bandwidth would allow. Rows of other devices and models have no peer. Tokens and rewards are
random, and no row ends early. There is no comparison with torch.
"""

import dataclasses
import functools
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging

from r2rec_jax.bench.models import SMALLEST, random_tokens
from r2rec_jax.bench.random_programs import NEVER, Programs
from r2rec_jax.bench.result import Row, paired_seconds, row
from r2rec_jax.model.architecture import LlamaConfig, parse_config
from r2rec_jax.model.completion import CompletionBatch
from r2rec_jax.model.logprobs import token_logprobs
from r2rec_jax.performance.programs import PUBLISHED
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.rollout.engine import Engine, Prompts
from r2rec_jax.rollout.slots import Rollout
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.measured_peaks import copy_bandwidth
from r2rec_jax.train.grpo import GRPOBatch
from r2rec_jax.train.objective import group_advantages

REPEATS, CHUNK = 5, 32
EPOCH = 500  # prompts of an epoch


@dataclasses.dataclass(frozen=True)
class Sizes:
    """Sizes of the benchmarks.

    sft: rows, tokens of a prompt, tokens of a completion. head: tokens.
    evaluate (also for decoding): prompts, tokens of a prompt, tokens to decode.
    shared: prompts, samples per prompt, tokens of a prompt.
    grpo: prompts, samples per prompt, tokens of a prompt, tokens to decode.
    """

    config: LlamaConfig
    dtype: str
    remat: str
    sft: tuple[int, int, int]
    head: int
    evaluate: tuple[int, int, int]
    shared: tuple[int, int, int]
    grpo: tuple[int, int, int, int]


SIZES = {
    "llama3_8b": Sizes(
        parse_config(PUBLISHED["DeepSeek-R1-Distill-Llama-8B"], "llama3_8b"),
        "bfloat16",
        "block",
        sft=(4, 3072, 1024),
        head=16_384,
        evaluate=(64, 3072, 1000),
        shared=(16, 8, 3072),
        grpo=(8, 8, 2250, 1000),
    ),
    "tiny": Sizes(
        SMALLEST,
        "float32",
        "block",
        (2, 12, 4),
        64,
        evaluate=(2, 12, 8),
        shared=(2, 2, 12),
        grpo=(2, 2, 12, 8),
    ),
}
# (target, limit) of the 8B on one card. The limit follows from the FLOP/s or bandwidth of its data sheet.
TARGETS = {
    "NVIDIA H200": {
        "sft": (14_000, 29_800),
        "head": (0.050, 0.035),
        "head memory": (600, None),
        "shared rate": (10_000, 17_000),
        "epoch": (14, 6.7),
        "evaluation": (0.21, 0.15),
    },
    "NVIDIA A100-SXM4-80GB": {"sft": (5_200, 9_400)},
}


def run(platform: str, name: str) -> list[Row]:
    """Measures the rows of SIZES[name]. Automatic choices are logged.

    Raises:
      UserError: an unknown name, or JAX's backend is not `platform`, "cpu" or "gpu".
    """
    if name not in SIZES:
        raise UserError(f"--model={name} is unknown: use one of {', '.join(SIZES)}")
    if jax.default_backend() != platform:
        raise UserError(f"--device={platform}: JAX runs on a {jax.default_backend()} here")
    s, kind = SIZES[name], jax.local_devices()[0].device_kind
    targets = TARGETS.get(kind, {}) if name == "llama3_8b" else {}
    programs = Programs(s.config, s.dtype, s.remat)
    logging.info("%s on %s: %s, remat %s, attention %s", name, kind, s.dtype, s.remat, programs.attention)
    logging.info("decoding: adapter merged, chunks of %d tokens, cache in %s", CHUNK, s.dtype)

    def against(key: str, title: str, ours: list[float], unit: str) -> Row:
        wanted, limit = targets.get(key, (None, None))
        if wanted is None:
            return row(title, ours, None, unit)
        beyond = None if limit is None else limit / wanted if unit.endswith("/s") else wanted / limit
        return row(title, ours, [wanted], unit, 1.0, beyond)

    rows = [
        *_head(s, against),
        *_sft(s, programs, against),
        *_decode(name, s, programs, against),
        *_grpo(s, programs, against),
    ]
    return rows


def _head(s: Sizes, against: Callable) -> list[Row]:
    M, D, V = s.head, s.config.hidden_size, s.config.vocab_size
    hidden_MD, head_DV = (
        jax.random.normal(jax.random.key(seed), shape, s.dtype) * D**-0.5
        for seed, shape in enumerate(((M, D), (D, V)))
    )
    tokens_M = jnp.asarray(random_tokens(s.config, M))
    compiled = head_gradient().lower(hidden_MD, head_DV, tokens_M).compile()
    seconds = _seconds(lambda: compiled(hidden_MD, head_DV, tokens_M))
    title = f"head and loss, {M:,} tokens, frozen head"
    extra = compiled.memory_analysis().temp_size_in_bytes / 1e6
    return [
        against("head", f"{title}: time", seconds, "s"),
        against("head memory", f"{title}: memory", [extra], "MB"),
    ]


def head_gradient():
    """jit of (hidden, head, tokens) -> sum of log-probabilities and its gradient with respect to hidden."""

    def total(hidden_MD, head_DV, tokens_M):
        return token_logprobs(hidden_MD, head_DV, tokens_M, jnp.ones(len(tokens_M)))[0].sum()

    return jax.jit(jax.value_and_grad(total))


def _sft(s: Sizes, programs: Programs, against: Callable) -> list[Row]:
    B, P, R = s.sft
    batch = completions(s.config, B, 1, P, R)
    seconds = _seconds(functools.partial(programs.train, "sft", batch))
    title = f"SFT LoRA step, {B} rows of {P} + {R} tokens"
    return [against("sft", title, [B * (P + R) / second for second in seconds], "tokens/s")]


def _decode(name: str, s: Sizes, programs: Programs, against: Callable) -> list[Row]:
    users, P, R = s.evaluate
    engine = _engine(programs, R)
    seconds, traffic = _chunks(engine, programs, users, 1, P)
    bandwidth = [traffic / second / 1e9 for second in seconds]
    copied = [copy_bandwidth() / 1e9]
    rate = users / statistics.median(seconds)
    title = f"decode, {users} rows, context {P}, {rate:,.0f} tokens/s, against a copy"
    full = name == "llama3_8b"
    rows = [row(title, bandwidth, copied, "GB/s", 0.7 if full else None, 1.0 if full else None)]

    start = time.perf_counter()
    _generate(engine, programs, users, 1, P)
    taken = (time.perf_counter() - start) / users
    rows.append(
        against("evaluation", f"evaluation, {users} users, {P} + {R} tokens each: a user", [taken], "s")
    )

    B, G, P = s.shared
    engine = _engine(programs, CHUNK * (REPEATS + 1))
    apart, _ = _chunks(engine, programs, B * G, 1, P)
    together, _ = _chunks(engine, programs, B, G, P)
    title = f"decode a token, {B} prompts of {P} x {G} samples"
    rows.append(row(f"{title}, against each its own", together, apart, "s", 1.6 if full else None))
    return [*rows, against("shared rate", title, [B * G / second for second in together], "tokens/s")]


def _grpo(s: Sizes, programs: Programs, against: Callable) -> list[Row]:
    B, G, P, R = s.grpo
    engine, rng = _engine(programs, R), np.random.default_rng(0)

    def step() -> None:
        rollout = _generate(engine, programs, B, G, P)
        batch = completions(s.config, B, G, P, R)
        batch = batch.replace(response=rollout.tokens)
        advantage_BG, _ = group_advantages(rng.normal(size=(B, G)), scale_by_std=True)
        programs.train("grpo", GRPOBatch(batch, advantage_BG.reshape(-1), rollout.logprobs))

    minutes = [second * EPOCH / B / 60 for second in _seconds(step, repeats=1)]
    title = f"GRPO epoch, {EPOCH} prompts of {P} x {G} x {R} tokens, from a step of {B} prompts"
    return [against("epoch", title, minutes, "min")]


def completions(config: LlamaConfig, B: int, G: int, P: int, R: int) -> CompletionBatch:
    """A batch of random tokens without padding."""
    prompt_BP, response_NR = random_tokens(config, B, P), random_tokens(config, B * G, R, seed=1)
    return CompletionBatch(prompt_BP, np.full(B, P, np.int32), response_NR, np.ones((B * G, R), np.float32))


def _engine(programs: Programs, tokens: int) -> Engine:
    return Engine(
        programs.model,
        NEVER,
        RolloutConfig(max_tokens=tokens, temperature=1.0, chunk=CHUNK, weights="merged"),
    )


def _generate(engine: Engine, programs: Programs, B: int, G: int, P: int) -> Rollout:
    prompt_BP, ids_B = random_tokens(programs.model.config, B, P), np.arange(B, dtype=np.int32)
    prompts = Prompts(prompt_BP, np.full(B, P, np.int32), ids_B)
    return Rollout.of_groups(engine(programs.variables, prompts, samples=G, seed=0))


def _chunks(engine: Engine, programs: Programs, B: int, G: int, P: int) -> tuple[list[float], float]:
    """Seconds per token of consecutively decoded chunks, and the bytes that each token must read.

    The bytes are those of the weights, of the prompts' keys and values, and half of the rows' own cache.
    """
    ids_B = np.arange(B, dtype=np.int32)
    prompts = Prompts(random_tokens(programs.model.config, B, P), np.full(B, P, np.int32), ids_B)
    weights = engine._copy(programs.variables)
    state = engine._fill(weights, prompts, ids_B, jax.random.key(0), samples=G)
    read = dict(weights["params"])
    if "lm_head" in read:
        del read["embed_tokens"]  # only the rows of the current tokens are read
    caches = [sum(x.nbytes for x in jax.tree.leaves((past.k, past.v))) for past in (state.prompt, state.own)]
    traffic = sum(x.nbytes for x in jax.tree.leaves(read)) + caches[0] + caches[1] / 2
    seconds = []
    for _ in range(min(REPEATS + 1, max(2, engine.sampling.max_tokens // CHUNK))):
        start = time.perf_counter()
        state, drawn = engine._decode(weights, state)
        jax.block_until_ready((state, drawn))
        seconds.append((time.perf_counter() - start) / CHUNK)
    return seconds[1:], traffic  # without the first, which includes compilation


def _seconds(call: Callable, repeats: int = REPEATS) -> list[float]:
    return paired_seconds(lambda: jax.block_until_ready(call()), lambda: None, repeats)[0]

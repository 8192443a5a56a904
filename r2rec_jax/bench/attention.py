"""Attention, forward and backward, beside jax.nn.dot_product_attention of the same device's XLA."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from r2rec_jax.bench.result import Row, paired_seconds, row
from r2rec_jax.model.attention import Prefix, attend

H, K, A = 8, 4, 64


def run(peers: str | None, quick: bool) -> list[Row]:
    del peers  # the peer is a part of JAX
    rows = []
    for N, T in [(2, 64)] if quick else [(4, 512), (4, 1024)]:
        arrays = _arrays((N, T, H, A), *[(N, K, T, A)] * 2)
        rows += _compare(f"causal, {N} rows of {T}", attend, _causal, arrays)
    B, G, P, T = (1, 2, 64, 32) if quick else (2, 8, 512, 128)
    arrays = _arrays((B * G, T, H, A), *[(B * G, K, T, A)] * 2, *[(B, K, P, A)] * 2)
    name = f"{B} prompts of {P}, {G} rows of {T} each"
    return rows + _compare(name, _over_prompts, _repeated_prompts, arrays)


def _arrays(*shapes: tuple[int, ...]) -> list[jax.Array]:
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in shapes]


def _causal(q_NTHA, k_NKTA, v_NKTA):
    return jax.nn.dot_product_attention(q_NTHA, k_NKTA.swapaxes(1, 2), v_NKTA.swapaxes(1, 2), is_causal=True)


def _over_prompts(q, k, v, prompt_k_BKPA, prompt_v_BKPA):
    B, _, P, _ = prompt_k_BKPA.shape
    return attend(q, k, v, Prefix(prompt_k_BKPA, prompt_v_BKPA, jnp.full(B, P)))


def _repeated_prompts(q, k, v, prompt_k_BKPA, prompt_v_BKPA):
    """What a function without shared prompts needs: the prompt's keys before each row's own, and a mask."""
    T, P = q.shape[1], prompt_k_BKPA.shape[2]
    samples = len(q) // len(prompt_k_BKPA)

    def all_keys(prompt, own):
        return jnp.concatenate([jnp.repeat(prompt, samples, axis=0), own], axis=2).swapaxes(1, 2)

    mask = jnp.tri(T, P + T, P, dtype=bool)[None, None]
    keys, values = all_keys(prompt_k_BKPA, k), all_keys(prompt_v_BKPA, v)
    return jax.nn.dot_product_attention(q, keys, values, mask=mask)


def _compare(name: str, ours: Callable, peer: Callable, arrays: list[jax.Array]) -> list[Row]:
    """Seconds of value and gradients, and the memory that XLA plans beside inputs and outputs."""
    compiled = []
    for function in (ours, peer):

        def loss(*arrays, function=function):
            return jnp.sum(jnp.sin(function(*arrays)))

        gradient = jax.jit(jax.value_and_grad(loss, tuple(range(len(arrays)))))
        compiled.append(gradient.lower(*arrays).compile())
    seconds = paired_seconds(*(lambda c=c: jax.block_until_ready(c(*arrays)) for c in compiled))
    memory = [[c.memory_analysis().temp_size_in_bytes / 1e6] for c in compiled]
    return [row(f"{name}: time", *seconds, "s"), row(f"{name}: memory", *memory, "MB")]

"""Both implementations, values and gradients, against dense attention of one row and head at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r2rec_jax.model import attention
from r2rec_jax.model.attention import Prefix, attend, choose_attention
from r2rec_jax.model.completion import prefill
from r2rec_jax.model.llama import Llama, init_variables
from r2rec_jax.runtime.errors import UserError

N, H, K, A = 6, 4, 2, 5
SHARED = (2, 7, [7, 3])  # a past: rows, slots, valid keys of each row
EMPTY = (3, 4, [4, 0, 1])
CACHE = (N, 5, [2] * N)

# (queries a row, pasts), for blocks of 4 queries.
CASES = {
    "plain": (3, []),
    "blocks": (8, []),
    "tiers and a remainder": (23, []),
    "shared prompts": (4, [SHARED]),
    "shared prompts, one empty, blocks": (11, [EMPTY]),
    "prompts and cache": (6, [SHARED, CACHE]),
    "decode": (1, [SHARED, CACHE]),
}


@pytest.fixture(params=["xla", "cudnn"])
def implementation(request, monkeypatch):
    """cuDNN's kernel is stood in for by JAX's own attention; everything around it is the real thing."""
    monkeypatch.setattr(attention, "BLOCK", 4)
    library = jax.nn.dot_product_attention

    def plain(q, k, v, *, is_causal, implementation):
        assert implementation == "cudnn"
        return library(q, k, v, is_causal=is_causal)

    def flash(q, k, v, length=None):
        q, k, v = (x.swapaxes(1, 2) for x in (q, k, v))
        causal = length is None
        out, lse = library(q, k, v, key_value_seq_lengths=length, is_causal=causal, return_residual=True)
        return out.swapaxes(1, 2), lse.swapaxes(1, 2)

    monkeypatch.setattr(jax.nn, "dot_product_attention", plain)
    monkeypatch.setattr(attention, "_flash", flash)
    return request.param


def make(T, pasts, seed=0):
    """((q, k, v, [(k, v) of each past]), their lengths, a cotangent), float64."""
    rng = np.random.default_rng(seed)
    q, k, v = rng.normal(size=(N, T, H, A)), *rng.normal(size=(2, N, K, T, A))
    kv = [tuple(rng.normal(size=(2, B, K, P, A))) for B, P, _ in pasts]
    return (q, k, v, kv), [np.array(length) for *_, length in pasts], rng.normal(size=q.shape)


def dense(arrays, lengths, d_out):
    """(out, gradients of sum(out * d_out)) by definition."""
    q, k, v, pasts = arrays
    T = q.shape[1]
    out = np.zeros_like(q)
    d_q, d_k, d_v, d_pasts = jax.tree.map(np.zeros_like, arrays)
    for n, h in np.ndindex(N, H):
        g = h // (H // K)
        parts = [(k[n, g], v[n, g], d_k[n, g], d_v[n, g])]
        for (past_k, past_v), (d_past_k, d_past_v), length in zip(pasts, d_pasts, lengths, strict=True):
            at = (n // (N // len(past_k)), g, slice(length[n // (N // len(past_k))]))
            parts.append((past_k[at], past_v[at], d_past_k[at], d_past_v[at]))
        keys, values = (np.concatenate([part[i] for part in parts]) for i in (0, 1))
        sees = np.concatenate([np.tri(T), np.ones((T, len(keys) - T))], axis=1)
        weights = np.exp(q[n, :, h] @ keys.T / np.sqrt(A)) * sees
        weights /= weights.sum(axis=1, keepdims=True)
        out[n, :, h] = weights @ values
        d_weights = d_out[n, :, h] @ values.T
        d_scores = weights * (d_weights - (weights * d_weights).sum(axis=1, keepdims=True)) / np.sqrt(A)
        d_q[n, :, h] = d_scores @ keys
        d_keys, d_values = d_scores.T @ q[n, :, h], weights.T @ d_out[n, :, h]
        offset = 0
        for part_k, _, d_part_k, d_part_v in parts:
            d_part_k += d_keys[offset : offset + len(part_k)]
            d_part_v += d_values[offset : offset + len(part_k)]
            offset += len(part_k)
    return out, (d_q, d_k, d_v, d_pasts)


def run(implementation, arrays, lengths, d_out, dtype=jnp.float32):
    def function(q, k, v, pasts):
        pasts = [Prefix(*kv, jnp.asarray(length)) for kv, length in zip(pasts, lengths, strict=True)]
        return attend(q, k, v, *pasts, implementation=implementation)

    out, vjp = jax.vjp(jax.jit(function), *jax.tree.map(lambda x: jnp.asarray(x, dtype), arrays))
    return out, vjp(jnp.asarray(d_out, dtype))


@pytest.mark.parametrize(("T", "pasts"), CASES.values(), ids=CASES)
def test_values_and_gradients_are_dense_attentions(T, pasts, implementation, assert_close):
    inputs = make(T, pasts)
    assert_close(run(implementation, *inputs), dense(*inputs), rtol=1e-5)


def test_bfloat16_keeps_dtypes_and_is_near(implementation, assert_close):
    inputs = make(11, [SHARED, CACHE])
    got = run(implementation, *inputs, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.bfloat16.dtype}
    assert_close(got, dense(*inputs), rtol=0.03)


def test_large_scores_overflow_nothing(implementation):
    (q, k, v, pasts), lengths, d_out = make(11, [EMPTY])
    got = run(implementation, (q * 1e3, k, v, pasts), lengths, d_out)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(got))


def test_the_model_takes_what_it_is_told(implementation, config, assert_close, monkeypatch):
    """Prefill and the rows of a group, through the whole model."""
    calls = []
    flash = attention._flash
    monkeypatch.setattr(attention, "_flash", lambda *arguments: calls.append(1) or flash(*arguments))
    model, prompt = Llama(config, attention=implementation), np.arange(14).reshape(2, 7)
    variables = init_variables(model, seed=0)

    def hidden(model):
        prefix, _ = prefill(model, variables, prompt, np.array([7, 4]))
        return model.apply(variables, np.arange(20).reshape(4, 5), np.array([6, 6, 3, 3]), prefix)[0]

    assert_close(hidden(model), hidden(Llama(config)), rtol=1e-5)
    assert bool(calls) == (implementation == "cudnn")


def gradient_memory(T: int, P: int, function) -> int:
    """Bytes that XLA plans beside inputs and outputs for attention over a prefix and its gradient."""

    def loss(q, k, v, past_k, past_v):
        return jnp.sum(jnp.sin(function(q, k, v, Prefix(past_k, past_v, jnp.full(1, P)))))

    q, k = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in [(2, T, 4, 8), (2, 2, T, 8)])
    past = jax.ShapeDtypeStruct((1, 2, P, 8), jnp.float32)
    compiled = jax.jit(jax.grad(loss, argnums=range(5))).lower(q, k, k, past, past).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def naive(q, k, v, past):
    """All scores at once."""
    k, v = (jnp.concatenate([jnp.repeat(a, 2, axis=0), b], axis=2) for a, b in [(past.k, k), (past.v, v)])
    T, S = q.shape[1], k.shape[2]
    scores = jnp.einsum("ntkja,nksa->nkjts", q.reshape(2, T, 2, 2, 8), k)
    weights = jax.nn.softmax(jnp.where(jnp.tri(T, S, S - T, dtype=bool), scores, -jnp.inf))
    return jnp.einsum("nkjts,nksa->ntkja", weights, v)


def test_memory_grows_with_the_queries_and_not_their_square():
    half, whole = (gradient_memory(T, 256, attend) for T in (512, 1024))
    assert whole < 2 * half
    assert whole < gradient_memory(1024, 256, naive) / 5
    # Keys count once a block.
    assert gradient_memory(512, 512, attend) < 1.5 * half


def test_the_choice_of_implementation(monkeypatch):
    assert choose_attention("auto", 128, "bfloat16") == "xla"
    assert choose_attention("xla", 128, "bfloat16") == "xla"
    with pytest.raises(UserError, match=r"the device is a CPU; use model\.attention=xla"):
        choose_attention("cudnn", 128, "bfloat16")
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert choose_attention("auto", 128, "bfloat16") == "cudnn"
    assert choose_attention("xla", 128, "bfloat16") == "xla"
    for head_dim, dtype, why in [
        (24, "float32", "dtype"),
        (136, "float16", "head_dim"),
        (20, "bfloat16", "20"),
    ]:
        assert choose_attention("auto", head_dim, dtype) == "xla"
        with pytest.raises(UserError, match=why):
            choose_attention("cudnn", head_dim, dtype)
    with pytest.raises(UserError, match="unknown: use one of auto, xla, cudnn"):
        choose_attention("flash", 128, "bfloat16")

"""Grouped-query attention over a row's own keys and preceding keys (shared prompts, a cache).

There are two implementations. `xla` runs on every device in blocks of queries and never materializes all
scores. `cudnn` runs each part with cuDNN's flash attention and merges the parts by their log-sum-exp. Both
share one hand-written backward pass.
"""

import functools
import itertools

import flax.struct
import jax
import jax.numpy as jnp
from absl import logging
from jax.ad_checkpoint import checkpoint_name

from r2rec_jax.model.config import ATTENTIONS
from r2rec_jax.runtime.errors import UserError

BLOCK = 128  # queries per block of scores
RESIDUALS = "attention_residuals"  # checkpoint_name of the residuals that the backward pass needs
LARGEST_HEAD = 128  # largest head_dim of cuDNN's flash attention on every GPU since Ampere


@flax.struct.dataclass
class Prefix:
    """Keys and values that precede a pass: those of B prompts, each shared by G rows, or of each row (G = 1).

    `k`, `v`: [B, K, P, A] inside a layer, rotated, right-padded. For the whole model either [L, B, K, P, A]
    or, if it is unrolled, a tuple of L such arrays.
    `length`: int32 [B], number of valid tokens; [L, B] if `k` and `v` are stacked.
    `k_scale`, `v_scale`: scales of int8 `k` and `v`, float32, with the shape of `k` and `v` without A.
    """

    k: jax.Array
    v: jax.Array
    length: jax.Array
    k_scale: jax.Array | None = None
    v_scale: jax.Array | None = None

    def layer(self, number: int) -> "Prefix":
        """The prefix of layer `number` of an unrolled model."""
        k, v, k_scale, v_scale = (
            None if x is None else x[number] for x in (self.k, self.v, self.k_scale, self.v_scale)
        )
        return Prefix(k, v, self.length, k_scale, v_scale)


def choose_attention(name: str, head_dim: int, dtype) -> str:
    """Resolves config.model.attention to an implementation, 'xla' or 'cudnn', and logs it.

    'auto' selects cuDNN if it can run: on a GPU with 16-bit activations and a supported head_dim.

    Raises:
      UserError: an unknown name, or 'cudnn' where it cannot run.
    """
    obstacle = None
    if jax.default_backend() != "gpu":
        obstacle = f"the device is a {jax.default_backend().upper()}"
    elif jnp.dtype(dtype) not in (jnp.bfloat16, jnp.float16):
        obstacle = f"model.dtype is {jnp.dtype(dtype).name} and not bfloat16"
    elif head_dim > LARGEST_HEAD or head_dim % 8:
        obstacle = f"the model's head_dim is {head_dim}, not a multiple of 8 up to {LARGEST_HEAD}"
    if name == "cudnn" and obstacle:
        raise UserError(f"model.attention=cudnn cannot run: {obstacle}; use model.attention=xla")
    if name not in ATTENTIONS:
        raise UserError(f"model.attention={name!r} is unknown: use one of {', '.join(ATTENTIONS)}")
    chosen = ("xla" if obstacle else "cudnn") if name == "auto" else name
    logging.info("attention: %s%s", chosen, f" ({obstacle})" if name == "auto" and obstacle else "")
    return chosen


def attend(q_NTHA, k_NKTA, v_NKTA, *pasts: Prefix, implementation: str = "xla"):
    """softmax(q k^T / sqrt(A)) v, causal over the own keys and full over the valid keys of each past.

    Args:
      q_NTHA: queries.
      k_NKTA, v_NKTA: keys and values of the same tokens. None if the last past already contains them,
        which is allowed for T = 1.
      pasts: keys and values of the preceding tokens. Row n continues row n // (N / B) of a past with B rows:
        a prompt shared by G rows, or a cache with one row each.
      implementation: see `choose_attention`.

    Returns:
      [N, T, H, A] in q's dtype. Scores, softmax and sums are float32.

    Padding needs no extra mask: rows are padded on the right, and the outputs of padded queries are never
    read.
    """
    N, T, H, A = q_NTHA.shape
    K = (pasts[-1].k if k_NKTA is None else k_NKTA).shape[1]
    assert T == 1 or k_NKTA is not None
    # A single query is one memory-bound pass over the keys, which gains nothing from blocks or fusion.
    cudnn = implementation == "cudnn" and T > 1
    if cudnn and not pasts:
        k_NTKA, v_NTKA = k_NKTA.swapaxes(1, 2), v_NKTA.swapaxes(1, 2)
        return jax.nn.dot_product_attention(q_NTHA, k_NTKA, v_NTKA, is_causal=True, implementation="cudnn")
    q_NKJTA = q_NTHA.reshape(N, T, K, H // K, A).transpose(0, 2, 3, 1, 4)
    out_NKJTA = _attend(cudnn, q_NKJTA, k_NKTA, v_NKTA, pasts)
    return out_NKJTA.transpose(0, 3, 1, 2, 4).reshape(N, T, H, A)


# Below, q is [N, K, J, T, A] with J = H / K query heads per key head. For a past of B rows, all queries
# with the same keys are folded into rows, [B, K, (G J T), A], which gives one matmul per key head.


def _fold(x_NKJT, B: int):
    """[N, K, J, T, ...] -> [B, K, G J T, ...]."""
    N, K, J, T, *rest = x_NKJT.shape
    return x_NKJT.reshape(B, N // B, K, J, T, *rest).swapaxes(1, 2).reshape(B, K, N // B * J * T, *rest)


def _unfold(x_BKQ, N: int, J: int):
    """The inverse of `_fold`."""
    B, K, Q, *rest = x_BKQ.shape
    G = N // B
    return x_BKQ.reshape(B, K, G, J, Q // (G * J), *rest).swapaxes(1, 2).reshape(N, K, J, -1, *rest)


def _scores(q_NKJTA, k_BKSA, length_B=None, start=0, scale_BKS=None):
    """Scores [B, K, G J T, S] in float32, -inf where masked.

    With `length_B`, keys at or beyond the length are masked. Otherwise keys after the query's position are
    masked. `start` is the position of the first query.
    """
    T, S = q_NKJTA.shape[3], k_BKSA.shape[2]
    q = _fold(q_NKJTA, len(k_BKSA))
    scores = jnp.einsum("bkqa,bksa->bkqs", q, k_BKSA.astype(q.dtype), preferred_element_type=jnp.float32)
    scores *= q.shape[-1] ** -0.5
    if scale_BKS is not None:
        scores *= scale_BKS[:, :, None]
    if length_B is None:
        valid = start + jnp.arange(q.shape[2])[:, None] % T >= jnp.arange(S)
    else:
        valid = (jnp.arange(S) < length_B[:, None])[:, None, None]
    return jnp.where(valid, scores, -jnp.inf)


def _blocked(x_NKJT, fill=0):
    """[N, K, J, T, ...] -> [blocks, N, K, J, t, ...], padded to equal blocks of at most BLOCK."""
    T = x_NKJT.shape[3]
    blocks = -(-T // BLOCK)
    block = -(-T // blocks)
    rest = x_NKJT.shape[4:]
    x = jnp.pad(x_NKJT, [(0, 0)] * 3 + [(0, blocks * block - T)] + [(0, 0)] * len(rest), constant_values=fill)
    return jnp.moveaxis(x.reshape(*x.shape[:3], blocks, block, *rest), 3, 0)


def _unblocked(x, T: int):
    """The inverse of `_blocked`."""
    x = jnp.moveaxis(x, 0, 3)
    return x.reshape(*x.shape[:3], -1, *x.shape[5:])[:, :, :, :T]


def _tiers(blocks: int, block: int, T: int):
    """Slices of blocks that use the same static number of own keys, and this number.

    A loop over blocks bounds the memory, but all its iterations have the shapes of the last block. Up to four
    loops skip most of the causally masked keys.
    """
    tiers = min(blocks, 4)
    bounds = [blocks * tier // tiers for tier in range(tiers + 1)]
    return [(slice(lo, hi), min(hi * block, T)) for lo, hi in itertools.pairwise(bounds)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _attend(cudnn: bool, q_NKJTA, k_NKTA, v_NKTA, pasts):
    return _forward(cudnn, q_NKJTA, k_NKTA, v_NKTA, pasts)[0]


def _forward(cudnn, q_NKJTA, k_NKTA, v_NKTA, pasts):
    """(out [N, K, J, T, A], log-sum-exp of each query's scores, float32 [N, K, J, T])."""
    if cudnn:
        return _forward_merged(q_NKJTA, k_NKTA, v_NKTA, pasts)
    T = q_NKJTA.shape[3]
    if T <= BLOCK:
        return _forward_block(q_NKJTA, 0, k_NKTA, v_NKTA, pasts)
    q = _blocked(q_NKJTA)
    starts = jnp.arange(len(q)) * q.shape[4]
    outs, lses = [], []
    for tier, end in _tiers(len(q), q.shape[4], T):
        k, v = k_NKTA[:, :, :end], v_NKTA[:, :, :end]
        out, lse = jax.lax.map(
            lambda each, k=k, v=v: _forward_block(*each, k, v, pasts), (q[tier], starts[tier])
        )
        outs.append(out)
        lses.append(lse)
    return _unblocked(jnp.concatenate(outs), T), _unblocked(jnp.concatenate(lses), T)


def _forward_block(q_NKJTA, start, k_NKSA, v_NKSA, pasts):
    N, _, J, _, _ = q_NKJTA.shape
    parts = [
        (_scores(q_NKJTA, past.k, past.length, scale_BKS=past.k_scale), past.v, past.v_scale)
        for past in pasts
    ]
    if k_NKSA is not None:
        parts.append((_scores(q_NKJTA, k_NKSA, start=start), v_NKSA, None))
    # Finite, because every query attends at least to its own key.
    largest = functools.reduce(jnp.maximum, [_unfold(s.max(axis=-1), N, J) for s, *_ in parts])
    total, out, dtype = 0.0, 0.0, q_NKJTA.dtype
    for scores, v, scale in parts:
        weights = jnp.exp(scores - _fold(largest, len(v))[..., None])
        total += _unfold(weights.sum(axis=-1), N, J)
        if scale is not None:
            weights *= scale[:, :, None]
        each = jnp.einsum(
            "bkqs,bksa->bkqa", weights.astype(dtype), v.astype(dtype), preferred_element_type=jnp.float32
        )
        out += _unfold(each, N, J)
    return (out / total[..., None]).astype(q_NKJTA.dtype), largest + jnp.log(total)


def _forward_merged(q_NKJTA, k_NKTA, v_NKTA, pasts):
    """Computes each part separately and merges them by log-sum-exp."""
    N, K, J, T, A = q_NKJTA.shape
    outs, lses = [], []
    for past in pasts:
        B = len(past.k)
        q_BKJGTA = q_NKJTA.reshape(B, N // B, K, J, T, A).transpose(0, 2, 3, 1, 4, 5)
        # cuDNN's result for a row without keys is undefined, so such a row gets one key with weight zero.
        out, lse = _flash(q_BKJGTA.reshape(B, K * J, -1, A), past.k, past.v, jnp.maximum(past.length, 1))
        lse = jnp.where(past.length[:, None, None] > 0, lse, -jnp.inf)

        def rows(x, B=B):
            return x.reshape(B, K, J, N // B, T, -1).transpose(0, 3, 1, 2, 4, 5).reshape(N, K, J, T, -1)

        outs.append(rows(out))
        lses.append(rows(lse)[..., 0])
    out, lse = _flash(q_NKJTA.reshape(N, K * J, T, A), k_NKTA, v_NKTA)
    outs.append(out.reshape(N, K, J, T, A))
    lses.append(lse.reshape(N, K, J, T))
    lse = jax.nn.logsumexp(jnp.stack(lses), axis=0)
    merged = sum(out * jnp.exp(each - lse)[..., None] for out, each in zip(outs, lses, strict=True))
    return merged.astype(q_NKJTA.dtype), lse


def _flash(q_BHTA, k_BKSA, v_BKSA, length_B=None):
    """cuDNN flash attention: (out [B, H, T, A], log-sum-exp float32 [B, H, T]). Causal without lengths."""
    # jax.nn.dot_product_attention rounds the log-sum-exp to bfloat16, which changes the weights of the parts
    # by several percent, and needs the keys transposed.
    from jax._src.cudnn import fused_attention_stablehlo as cudnn

    B, _, T, A = q_BHTA.shape
    query_length = None if length_B is None else jnp.full(B, T, jnp.int32)
    mask_type = cudnn.MaskType.CAUSAL if length_B is None else cudnn.MaskType.PADDING
    return cudnn.dot_product_attention(
        q_BHTA,
        k_BKSA,
        v_BKSA,
        q_seqlen=query_length,
        kv_seqlen=length_B,
        scale=A**-0.5,
        mask_type=mask_type,
        qkv_layout="BNTH",
        return_residual=True,
    )


def _save(cudnn, q_NKJTA, k_NKTA, v_NKTA, pasts):
    out, lse = _forward(cudnn, q_NKJTA, k_NKTA, v_NKTA, pasts)
    # Named, so that a remat policy can save them. If both are saved, scores are recomputed only in the
    # backward pass itself.
    out, lse = checkpoint_name(out, RESIDUALS), checkpoint_name(lse, RESIDUALS)
    return out, (q_NKJTA, k_NKTA, v_NKTA, pasts, out, lse)


def _backward(cudnn, saved, d_out_NKJTA):
    """Exact gradients of each part from the log-sum-exp over all parts (Dao 2023, FlashAttention-2)."""
    del cudnn
    q_NKJTA, k_NKTA, v_NKTA, pasts, out_NKJTA, lse_NKJT = saved
    T = q_NKJTA.shape[3]
    delta_NKJT = jnp.sum(d_out_NKJTA.astype(jnp.float32) * out_NKJTA.astype(jnp.float32), axis=-1)
    # Padded queries get the weight exp(-inf).
    rows = (_blocked(q_NKJTA), _blocked(d_out_NKJTA), _blocked(lse_NKJT, jnp.inf), _blocked(delta_NKJT))
    block = rows[0].shape[4]
    starts = jnp.arange(len(rows[0])) * block

    def one_block(totals, row):
        """Adds this block's (d_k, d_v) of each part to `totals`, and returns (totals, d_q)."""
        q, d_out, lse, delta, start = row
        end = totals[-1][0].shape[2]
        parts = [(past.k, past.v, past.length, 0) for past in pasts]
        parts.append((k_NKTA[:, :, :end], v_NKTA[:, :, :end], None, start))
        each = [_backward_part(q, d_out, lse, delta, *part) for part in parts]
        totals = [jax.tree.map(jnp.add, total, d_kv) for total, (_, *d_kv) in zip(totals, each, strict=True)]
        return totals, sum(d_q for d_q, *_ in each).astype(q.dtype)

    def zeros(k):
        return [jnp.zeros(k.shape, jnp.float32)] * 2

    d_q, d_pasts, d_own = [], [zeros(past.k) for past in pasts], zeros(k_NKTA)
    for tier, end in _tiers(len(starts), block, T):
        carry = [*d_pasts, zeros(k_NKTA[:, :, :end])]
        (*d_pasts, more), each = jax.lax.scan(one_block, carry, (*(x[tier] for x in rows), starts[tier]))
        d_own = [total.at[:, :, :end].add(new) for total, new in zip(d_own, more, strict=True)]
        d_q.append(each)

    d_k, d_v = (total.astype(k_NKTA.dtype) for total in d_own)
    d_pasts = tuple(
        Prefix(d_k.astype(past.k.dtype), d_v.astype(past.v.dtype), None)
        for (d_k, d_v), past in zip(d_pasts, pasts, strict=True)
    )
    return _unblocked(jnp.concatenate(d_q), T), d_k, d_v, d_pasts


def _backward_part(q_NKJTA, d_out_NKJTA, lse_NKJT, delta_NKJT, k_BKSA, v_BKSA, length_B, start):
    """(d_q, d_k, d_v) of a block of queries and one part, float32."""
    N, _, J, _, A = q_NKJTA.shape
    B, dtype = len(k_BKSA), q_NKJTA.dtype
    einsum = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    q, d_out, lse, delta = (_fold(x, B) for x in (q_NKJTA, d_out_NKJTA, lse_NKJT, delta_NKJT))
    weights = jnp.exp(_scores(q_NKJTA, k_BKSA, length_B, start) - lse[..., None])
    d_weights = einsum("bkqa,bksa->bkqs", d_out, v_BKSA)
    d_scores = (weights * (d_weights - delta[..., None]) * A**-0.5).astype(dtype)
    d_v = einsum("bkqs,bkqa->bksa", weights.astype(dtype), d_out)
    d_k = einsum("bkqs,bkqa->bksa", d_scores, q)
    return _unfold(einsum("bkqs,bksa->bkqa", d_scores, k_BKSA), N, J), d_k, d_v


_attend.defvjp(_save, _backward)

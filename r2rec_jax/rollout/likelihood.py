"""How likely a model finds given continuations of a prefix, which is computed once for all of them."""

import functools

import jax
import numpy as np

from r2rec_jax.model.completion import CompletionBatch, completion_logprobs
from r2rec_jax.model.llama import Llama
from r2rec_jax.pipeline.batches import pad
from r2rec_jax.runtime.mesh import to_devices, working_on

NARROWEST = 8  # tokens that continuations are padded to at least


def continuation_logprobs(
    model: Llama,
    variables: dict,
    prefixes: list[np.ndarray],
    continuations: list[list[np.ndarray]],
    *,
    buckets: tuple[int, ...],
    batch_size: int,
    counted: list[list[int]] | None = None,
    mesh: jax.sharding.Mesh | None = None,
) -> np.ndarray:
    """log p(continuation | its prefix), summed over its counted tokens, in nats.

    Prefixes are taken `batch_size` at a time with those of their own bucket, in order; the last ones of a
    bucket are joined by copies, so that every batch of a bucket has one shape.

    Args:
      prefixes: B of them, int32 tokens, at least one each.
      continuations: C of each prefix, int32 tokens, at least one each; all padded to one power of two.
      buckets: padded lengths of prefixes; see `pad`.
      batch_size: prefixes at a time; C times as many rows are scored.
      counted: of each continuation, how many of its last tokens count; those before belong to the context.
        None: all count.
      mesh: rows are split over its `data` and `fsdp`.

    Returns:
      float64 [B, C]; nan where the model gives no number.

    Raises:
      UserError: a prefix fits no bucket.
    """
    B, C = len(prefixes), len(continuations[0])
    lengths = [len(tokens) for each in continuations for tokens in each]
    if len(lengths) != B * C or min(lengths) < 1 or min(map(len, prefixes)) < 1:
        raise ValueError("every prefix and continuation has tokens, every prefix as many continuations")
    R = max(NARROWEST, 1 << (max(lengths) - 1).bit_length())
    # A device has whole prefixes.
    devices = 1 if mesh is None else mesh.shape["data"] * mesh.shape["fsdp"]
    size = -(-batch_size // devices) * devices
    bucket_of = np.searchsorted(sorted(buckets), [len(tokens) for tokens in prefixes])
    score_BC = np.empty((B, C))
    for bucket in np.unique(bucket_of):
        of_bucket = np.flatnonzero(bucket_of == bucket)
        for start in range(0, len(of_bucket), size):
            chosen = of_bucket[start : start + size]
            rows = np.concatenate([chosen, np.repeat(chosen[:1], size - len(chosen))])
            length_N = np.array([len(tokens) for b in rows for tokens in continuations[b]])
            count_N = length_N if counted is None else np.array([n for b in rows for n in counted[b]])
            place_R = np.arange(R)
            batch = CompletionBatch(
                prompt=pad([prefixes[b] for b in rows], buckets),
                prompt_length=np.array([len(prefixes[b]) for b in rows], np.int32),
                response=pad([tokens for b in rows for tokens in continuations[b]], (R,)),
                response_mask=np.float32(
                    (place_R < length_N[:, None]) & (place_R >= (length_N - count_N)[:, None])
                ),
            )
            if mesh is not None:
                batch = to_devices(batch, mesh)
            logprobs_NR = np.asarray(_logprobs(model, mesh, variables, batch), np.float64)
            score_BC[chosen] = logprobs_NR.sum(axis=1).reshape(size, C)[: len(chosen)]
    return score_BC


@functools.partial(jax.jit, static_argnums=(0, 1))
def _logprobs(model: Llama, mesh: jax.sharding.Mesh | None, variables: dict, batch: CompletionBatch):
    """float32 [N, R], 0 where the response's mask is."""
    with working_on(mesh):
        return completion_logprobs(model, variables, batch)[0]

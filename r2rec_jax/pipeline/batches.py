"""Examples to padded batches through grain, deterministic and resumable."""

import grain
import jax
import numpy as np

from r2rec_jax.model.completion import CompletionBatch
from r2rec_jax.runtime.errors import UserError


def pad(rows: list[np.ndarray], buckets: tuple[int, ...], dtype=np.int32) -> np.ndarray:
    """Stacks rows right-padded with zeros to the smallest bucket that holds the longest.

    Few buckets mean few compiled programs. Raises UserError when a row fits no bucket.
    """
    longest = max(len(row) for row in rows)
    width = next((bucket for bucket in sorted(buckets) if bucket >= longest), None)
    if width is None:
        raise UserError(f"a row of {longest} tokens fits no bucket of {tuple(buckets)}; add a larger bucket")
    out = np.zeros((len(rows), width), dtype)
    for k, row in enumerate(rows):
        out[k, : len(row)] = row
    return out


def collate(
    examples: list[dict], prompt_buckets: tuple[int, ...], response_buckets: tuple[int, ...]
) -> CompletionBatch:
    """One CompletionBatch of (prompt, response, mask) examples, one completion a prompt."""
    return CompletionBatch(
        prompt=pad([example["prompt"] for example in examples], prompt_buckets),
        prompt_length=np.array([len(example["prompt"]) for example in examples], np.int32),
        response=pad([example["response"] for example in examples], response_buckets),
        response_mask=pad([example["mask"] for example in examples], response_buckets, np.float32),
    )


def batches(source, *, batch_size: int, seed: int, shuffle: bool, to_batch) -> grain.DatasetIterator:
    """An endless iterator over a random-access source; its get_state/set_state resume it exactly.

    Each process reads its own share of every epoch; `to_batch` turns a list of examples into a batch.
    """
    dataset = grain.MapDataset.source(source)
    if shuffle:
        dataset = dataset.shuffle(seed=seed)
    dataset = dataset.repeat()[jax.process_index() :: jax.process_count()]
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=2 * batch_size))
    return iter(dataset.batch(batch_size // jax.process_count(), batch_fn=to_batch))

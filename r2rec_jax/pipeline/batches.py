"""Examples to padded batches through grain, deterministic and resumable."""

import functools

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


def batches(
    source, *, batch_size: int, seed: int, shuffle: bool, to_batch, lengths: np.ndarray | None = None
) -> grain.DatasetIterator:
    """An endless iterator over a random-access source; its get_state/set_state resume it exactly.

    Each process reads its own share of every epoch; `to_batch` turns a list of examples into a batch. With
    the examples' `lengths`, int [len(source)], it is shuffled and a batch holds examples of similar length
    (`SimilarLengths`).
    """
    if lengths is not None:
        groups = grain.MapDataset.source(SimilarLengths(source, lengths, batch_size, seed))
        # A group is a batch: it is read ahead by itself.
        return iter(groups.map(to_batch).to_iter_dataset(grain.ReadOptions(num_threads=2)))
    dataset = grain.MapDataset.source(source)
    if shuffle:
        dataset = dataset.shuffle(seed=seed)
    dataset = dataset.repeat()[jax.process_index() :: jax.process_count()]
    dataset = dataset.to_iter_dataset(grain.ReadOptions(num_threads=2, prefetch_buffer_size=2 * batch_size))
    return iter(dataset.batch(batch_size // jax.process_count(), batch_fn=to_batch))


class SimilarLengths:
    """Shuffled batches of similar length, so that little of a batch is padding; endless.

    An epoch is shuffled, sorted by length within windows of `WINDOW` batches, cut, and its batches are
    shuffled. What does not fill a batch waits for another epoch, which leaves out others. Group k, a list
    of this process's share of batch k, depends on (seed, k) alone.
    """

    WINDOW = 50  # batches: enough to find neighbours in length, few enough to leave the order random

    def __init__(self, source, lengths: np.ndarray, batch_size: int, seed: int):
        """Raises UserError when the source has less than one batch."""
        if len(source) < batch_size:
            raise UserError(f"{len(source)} examples do not fill a batch of {batch_size}: make it smaller")
        self.source, self.lengths, self.batch_size, self.seed = source, lengths, batch_size, seed
        self._epoch = functools.lru_cache(maxsize=2)(self._make_epoch)

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, k: int) -> list:
        epoch, place = divmod(int(k), len(self.source) // self.batch_size)
        rows = self._epoch(epoch)[place][jax.process_index() :: jax.process_count()]
        return [self.source[row] for row in rows.tolist()]

    def _make_epoch(self, epoch: int) -> np.ndarray:
        """int[batches, batch_size]: rows of the source."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.source))
        order = order[: len(order) // self.batch_size * self.batch_size]
        window = self.WINDOW * self.batch_size
        for start in range(0, len(order), window):
            rows = order[start : start + window]
            order[start : start + window] = rows[np.argsort(self.lengths[rows], kind="stable")]
        return rng.permutation(order.reshape(-1, self.batch_size))

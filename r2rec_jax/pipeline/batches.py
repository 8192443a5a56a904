"""Makes padded batches of examples with grain: prefetched, deterministic and resumable.

Batch k is a function of (source, seed, k). The order of the batches does not depend on the number of threads
or worker processes, or on how far ahead they read. On several machines each process makes every batch
completely, because the padded width depends on all rows of the batch.
"""

import signal
from collections.abc import Callable

import grain
import jax
import numpy as np

from r2rec_jax.model.completion import CompletionBatch
from r2rec_jax.runtime import library_workarounds
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.library_workarounds import pack, unpack


def pad(rows: list[np.ndarray], buckets: tuple[int, ...], dtype=np.int32) -> np.ndarray:
    """Stacks rows, right-padded with zeros to the smallest bucket that fits the longest row.

    The number of buckets limits the number of compiled programs.

    Raises:
      UserError: a row fits no bucket.
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
    """Makes a CompletionBatch of {'prompt', 'response', 'mask'} examples, with one completion per prompt."""
    return CompletionBatch(
        prompt=pad([example["prompt"] for example in examples], prompt_buckets),
        prompt_length=np.array([len(example["prompt"]) for example in examples], np.int32),
        response=pad([example["response"] for example in examples], response_buckets),
        response_mask=pad([example["mask"] for example in examples], response_buckets, np.float32),
    )


def check_fit(
    examples, prompt_buckets: tuple[int, ...], response_buckets: tuple[int, ...], where: str
) -> None:
    """Raises UserError for the first example that fits no bucket.

    `where` and the example's number, from 1, begin the error message.
    """
    fields = {"prompt": ("prompt.buckets", prompt_buckets)}
    fields["response"] = ("train.response_buckets", response_buckets)
    for number, example in enumerate(examples, start=1):
        for part, (field, buckets) in fields.items():
            if (tokens := len(example[part])) > max(buckets):
                raise UserError(
                    f"{where} {number}: a {part} of {tokens} tokens fits no bucket of {field}="
                    f"{tuple(buckets)}: add a larger one"
                )


def lengths_of(examples) -> np.ndarray:
    """The number of tokens (prompt and response) of each example, int [len(examples)]."""
    return np.array([len(example["prompt"]) + len(example["response"]) for example in examples])


def batches(
    source,
    *,
    batch_size: int,
    seed: int,
    shuffle: bool,
    to_batch: Callable[[list], object],
    lengths: np.ndarray | None = None,
    workers: int = 0,
    put: Callable[[object], object] | None = None,
) -> "Batches":
    """An endless iterator of batches over a random-access source.

    Args:
      to_batch: converts a list of examples to a batch. It runs in a worker like `source`, so both must use
        NumPy only.
      lengths: tokens of the examples, int [len(source)]. If given, batches are shuffled and contain examples
        of similar length (`SimilarLengths`).
      workers: number of worker processes, 0 for threads of this process.
      put: function applied in this process to each prefetched batch, for example to copy it to the devices.

    Raises:
      UserError: `workers` is negative, or `lengths` is given and the source is smaller than a batch.
    """
    if workers < 0:
        raise UserError(f"data.workers={workers}: use 0 for threads, or a number of processes")
    if lengths is not None:
        dataset = grain.MapDataset.source(SimilarLengths(source, lengths, batch_size, seed))
        return Batches(dataset.map(to_batch), workers, put)
    dataset = grain.MapDataset.source(source)
    if shuffle:
        dataset = dataset.shuffle(seed=seed)
    return Batches(dataset.repeat().batch(batch_size, batch_fn=to_batch), workers, put)


class Batches(grain.DatasetIterator):
    """Iterates over a dataset of batches in order, with prefetching.

    The state is the number of batches returned. Batches that were prefetched but not returned are read again
    after a restart. The number of workers may change between runs.
    """

    def __init__(self, dataset: grain.MapDataset, workers: int, put: Callable[[object], object] | None):
        super().__init__()
        self._dataset, self._workers, self._put = dataset, workers, put
        self._returned, self._ahead = 0, None

    def start_prefetch(self) -> None:
        """Starts reading, which takes seconds with workers. Otherwise the first `next` starts it."""
        self._assert_not_closed()
        if self._ahead is None:
            # Ctrl-C and a scheduler's SIGTERM also reach the workers, but their parent may need one more
            # batch. The threads and processes that start here inherit a mask that blocks both signals.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
            try:
                self._ahead = self._read_ahead()
                self._ahead.start_prefetch()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __next__(self):
        self.start_prefetch()
        batch = next(self._ahead)
        self._returned += 1
        return batch

    def get_state(self) -> dict[str, int]:
        return {"next_index": self._returned}

    def set_state(self, state: dict[str, int]) -> None:
        self._stop()
        self._returned = state["next_index"]

    def close(self) -> None:
        """Stops the workers."""
        super().close()
        self._stop()

    def _stop(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def _read_ahead(self) -> grain.DatasetIterator:
        threads = 0 if self._workers else 2
        # Slicing moves the start of the dataset. grain distributes the rest to the workers round-robin.
        ahead = self._dataset[self._returned :].to_iter_dataset(grain.ReadOptions(threads, 2 * threads))
        if self._workers:
            library_workarounds.start_resource_tracker()
            library_workarounds.let_grain_read_flags()
            options = grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=2)
            ahead = ahead.map(pack).mp_prefetch(options, worker_init_fn=_begin_worker).map(unpack)
        if self._put is not None:
            ahead = ahead.map(self._put)
        # One batch is in the buffer and one in the thread. With `put` both occupy device memory.
        return iter(grain.experimental.ThreadPrefetchIterDataset(ahead, prefetch_buffer_size=1))


def _begin_worker(index: int, count: int) -> None:  # noqa: ARG001 - as grain calls it
    """Initializes a worker: JAX uses the CPU only, and the worker exits when its parent exits."""
    jax.config.update("jax_platforms", "cpu")
    library_workarounds.end_with_parent()


class SimilarLengths:
    """An endless source of shuffled batches with examples of similar length, which reduces padding.

    An epoch is shuffled, sorted by length within windows of `WINDOW` batches, split into batches, and the
    batches are shuffled. Each epoch drops random examples that do not fill a batch. Element k, the list of
    examples of batch k, depends on (seed, k).
    """

    WINDOW = 50  # batches; large enough for similar lengths, small enough to keep the order random

    def __init__(self, source, lengths: np.ndarray, batch_size: int, seed: int):
        """Raises UserError if the source has fewer examples than a batch."""
        if len(source) < batch_size:
            raise UserError(f"{len(source)} examples do not fill a batch of {batch_size}: make it smaller")
        self.source, self.lengths, self.batch_size, self.seed = source, lengths, batch_size, seed
        self._cached: tuple[int, np.ndarray | None] = (-1, None)

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, k: int) -> list:
        epoch, place = divmod(int(k), len(self.source) // self.batch_size)
        return [self.source[row] for row in self._epoch(epoch)[place].tolist()]

    def _epoch(self, epoch: int) -> np.ndarray:
        cached, rows = self._cached  # one tuple, so that threads never read an epoch with rows of another
        if cached != epoch:
            rows = self._make_epoch(epoch)
            self._cached = epoch, rows
        return rows

    def _make_epoch(self, epoch: int) -> np.ndarray:
        """Indices into the source, int[batches, batch_size]."""
        rng = np.random.default_rng([self.seed, epoch])
        order = rng.permutation(len(self.source))
        order = order[: len(order) // self.batch_size * self.batch_size]
        window = self.WINDOW * self.batch_size
        for start in range(0, len(order), window):
            rows = order[start : start + window]
            order[start : start + window] = rows[np.argsort(self.lengths[rows], kind="stable")]
        return rng.permutation(order.reshape(-1, self.batch_size))

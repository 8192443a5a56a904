"""Examples to padded batches through grain: ahead of the step, deterministic and resumable.

Batch k is a function of (source, seed, k) alone. Whatever reads it, threads of this process or worker
processes, however many, and however far ahead, the same batches come in the same order. On several
machines each process makes all of them, whole: how wide a batch is padded, all its rows decide.
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


def check_fit(
    examples, prompt_buckets: tuple[int, ...], response_buckets: tuple[int, ...], where: str
) -> None:
    """Raises UserError for the first example that no bucket holds; `where` says what is counted, from 1."""
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
    """Tokens of each (prompt, response, mask) example of a source, int [len(examples)]."""
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
    """An endless iterator over a random-access source.

    Args:
      to_batch: turns a list of examples into a batch; runs in a worker, like `source`, so both are numpy.
      lengths: of the examples, int [len(source)]: shuffled, a batch holds examples of similar length
        (`SimilarLengths`).
      workers: processes that read, 0 for threads of this one.
      put: applied here to each batch ahead of its step, to have it on the devices by then.

    Raises:
      UserError: fewer than no workers; with `lengths`, a source of less than one batch.
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
    """Reads a dataset of batches in order, ahead of whoever asks for them.

    The state is the number of batches handed out. What was read ahead of it is read again after a
    restart, with as many workers as there are then.
    """

    def __init__(self, dataset: grain.MapDataset, workers: int, put: Callable[[object], object] | None):
        super().__init__()
        self._dataset, self._workers, self._put = dataset, workers, put
        self._handed_out, self._ahead = 0, None

    def start_prefetch(self) -> None:
        """Begins to read, or to start workers, which takes seconds; else the first batch asked for does."""
        self._assert_not_closed()
        if self._ahead is None:
            # A terminal sends Ctrl-C to workers too, a scheduler SIGTERM, but their parent may want one more
            # batch: both are blocked for whatever threads and processes begin here, from the first moment.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
            try:
                self._ahead = self._read_ahead()
                self._ahead.start_prefetch()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def __next__(self):
        self.start_prefetch()
        batch = next(self._ahead)
        self._handed_out += 1
        return batch

    def get_state(self) -> dict[str, int]:
        return {"next_index": self._handed_out}

    def set_state(self, state: dict[str, int]) -> None:
        self._stop()
        self._handed_out = state["next_index"]

    def close(self) -> None:
        """Ends the workers."""
        super().close()
        self._stop()

    def _stop(self) -> None:
        if self._ahead is not None:
            self._ahead.close()
            self._ahead = None

    def _read_ahead(self) -> grain.DatasetIterator:
        threads = 0 if self._workers else 2
        # Slicing a dataset moves its start; grain deals what follows to the workers in turn.
        ahead = self._dataset[self._handed_out :].to_iter_dataset(grain.ReadOptions(threads, 2 * threads))
        if self._workers:
            library_workarounds.start_resource_tracker()
            library_workarounds.let_grain_read_flags()
            options = grain.MultiprocessingOptions(self._workers, per_worker_buffer_size=2)
            ahead = ahead.map(pack).mp_prefetch(options, worker_init_fn=_begin_worker).map(unpack)
        if self._put is not None:
            ahead = ahead.map(self._put)
        # One batch waits in the buffer and one in the thread's hand: on the devices, if they are put there.
        return iter(grain.experimental.ThreadPrefetchIterDataset(ahead, prefetch_buffer_size=1))


def _begin_worker(index: int, count: int) -> None:  # noqa: ARG001 - as grain calls it
    """A worker starts no accelerator, whatever its code asks of JAX, and does not outlive its parent."""
    jax.config.update("jax_platforms", "cpu")
    library_workarounds.end_with_parent()


class SimilarLengths:
    """Shuffled batches of similar length, so that little of a batch is padding; endless.

    An epoch is shuffled, sorted by length within windows of `WINDOW` batches, cut, and its batches are
    shuffled. What does not fill a batch waits for another epoch, which leaves out others. Group k, the list
    of batch k's examples, depends on (seed, k) alone.
    """

    WINDOW = 50  # batches: enough to find neighbours in length, few enough to leave the order random

    def __init__(self, source, lengths: np.ndarray, batch_size: int, seed: int):
        """Raises UserError when the source has less than one batch."""
        if len(source) < batch_size:
            raise UserError(f"{len(source)} examples do not fill a batch of {batch_size}: make it smaller")
        self.source, self.lengths, self.batch_size, self.seed = source, lengths, batch_size, seed
        self._made: tuple[int, np.ndarray | None] = (-1, None)

    def __len__(self) -> int:
        return 1 << 40

    def __getitem__(self, k: int) -> list:
        epoch, place = divmod(int(k), len(self.source) // self.batch_size)
        return [self.source[row] for row in self._epoch(epoch)[place].tolist()]

    def _epoch(self, epoch: int) -> np.ndarray:
        made, rows = self._made  # read and written whole: threads may each make it, none sees a mixture
        if made != epoch:
            rows = self._make_epoch(epoch)
            self._made = epoch, rows
        return rows

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

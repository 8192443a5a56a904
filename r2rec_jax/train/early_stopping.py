"""The best step so far, and when a run stops before its last step."""

import io
import math
from pathlib import Path

import jax
import numpy as np

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import write_atomic
from r2rec_jax.train.config import LoopConfig


class EarlyStopping:
    """Counts skipped updates in a row, the best evaluation, and evaluations since then.

    Attributes:
      best_step: of the highest `config.best_metric`, the earliest of equals; None before there is one.
    """

    def __init__(self, config: LoopConfig):
        """Raises UserError for settings that contradict each other."""
        if config.patience and not config.best_metric:
            raise UserError("train.patience needs train.best_metric: name the metric that should improve")
        self._config = config
        self._skipped = self._waited = 0
        self._best: float | None = None
        self.best_step: int | None = None

    def state(self) -> dict:
        """JSON-able, for a checkpoint."""
        return {
            "skipped": self._skipped,
            "best": self._best,
            "best_step": self.best_step,
            "waited": self._waited,
        }

    def resume(self, state: dict) -> None:
        self._skipped, self._best = state["skipped"], state["best"]
        self.best_step, self._waited = state["best_step"], state["waited"]

    def update(self, metrics: dict[str, float]) -> None:
        """Records a step's metrics."""
        self._skipped = self._skipped + 1 if metrics.get("train/skipped_count") else 0

    def evaluation(self, step: int, metrics: dict[str, float]) -> bool:
        """Records an evaluation; returns True when it is the best so far.

        Raises:
          UserError: the evaluation has no such metric.
        """
        name = self._config.best_metric
        if not name:
            return False
        if name not in metrics:
            raise UserError(f"train.best_metric {name!r} is unknown: use one of {', '.join(sorted(metrics))}")
        value = float(metrics[name])
        if math.isfinite(value) and (self._best is None or value > self._best):
            self._best, self.best_step, self._waited = value, step, 0
            return True
        self._waited += 1
        return False

    @property
    def gave_up(self) -> bool:
        """`config.patience` evaluations have passed without a better one."""
        return 0 < self._config.patience <= self._waited

    @property
    def broken(self) -> bool:
        """`config.stop_after_skipped` updates in a row were not finite."""
        return 0 < self._config.stop_after_skipped <= self._skipped


def save_batch(path: Path, batch) -> None:
    """This process's rows of a batch as an .npz of one array a leaf, named as in "completions.prompt"."""
    leaves = jax.tree_util.tree_leaves_with_path(batch)
    arrays = {jax.tree_util.keystr(path, simple=True, separator="."): _rows(leaf) for path, leaf in leaves}
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **{name or "batch": array for name, array in arrays.items()})
    write_atomic(path, file.getvalue())


def _rows(leaf) -> np.ndarray:
    if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
        return np.concatenate([shard.data for shard in leaf.addressable_shards if shard.replica_id == 0])
    return np.asarray(leaf)

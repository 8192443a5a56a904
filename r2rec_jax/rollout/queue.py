"""Many prompts of any length through an engine: each decoded with those of its own bucket."""

from collections.abc import Iterator

import jax
import numpy as np

from r2rec_jax.pipeline.batches import pad
from r2rec_jax.rollout.constrain import Rankings
from r2rec_jax.rollout.engine import Engine, Prompts
from r2rec_jax.rollout.slots import Rollout


def generate(
    engine: Engine,
    variables,
    rows: list[np.ndarray],
    ids: list[int],
    buckets: tuple[int, ...],
    *,
    seed: int,
    samples: int = 1,
    possible: Rankings | None = None,
) -> Iterator[tuple[int, Rollout]]:
    """(number of a prompt, its `samples` rows) in the order in which they end.

    Args:
      rows: the prompts' tokens, int32. ids: what a prompt's responses depend on besides seed and index.
      buckets: padded lengths; see `pad`. possible: of all prompts; see constrain.py.
    """
    lengths = np.array([len(row) for row in rows], np.int32)
    bucket_of = np.searchsorted(sorted(buckets), lengths)
    for bucket in np.unique(bucket_of):
        chosen = np.flatnonzero(bucket_of == bucket)
        prompts = Prompts(
            pad([rows[k] for k in chosen], buckets),
            lengths[chosen],
            np.array(ids, np.int32)[chosen],
            jax.tree.map(lambda x, chosen=chosen: x[chosen], possible),
        )
        for place, group in engine.groups(variables, prompts, samples=samples, seed=seed):
            yield int(chosen[place]), group

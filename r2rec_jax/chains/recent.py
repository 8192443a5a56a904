"""Chains through what the user rated last, selection "recent": loops that tell of a user's latest turns."""

from collections.abc import Sequence

import numpy as np

from r2rec_jax.chains.chain import Chain
from r2rec_jax.chains.companions import raters
from r2rec_jax.chains.graph import MAX_SPAN, Graph


def recent_chains(
    graph: Graph,
    user: int,
    history: Sequence[int],
    count: int,
    rng: np.random.Generator,
    clock: int = MAX_SPAN + 1,
) -> list[Chain]:
    """Up to `count` chains of one companion, the latest last.

    The last chain goes from the last but one item of `history` to the last, the one before it from the two
    items before, and so on. A pair that no companion rated gives way to the pair one item earlier. A chain's
    companion is drawn uniformly from those who rated both items, of no other chain where there are such.

    Args:
      history: items of the user, the oldest first.
      clock: on the graph's scale; companions' ratings at or after it do not exist.
    """
    chains, end = [], len(history)
    while end >= 2 and len(chains) < count:
        i0, i1 = int(history[end - 2]), int(history[end - 1])
        (users0, ratings0), (users1, ratings1) = (raters(graph, item, clock) for item in (i0, i1))
        place = np.minimum(np.searchsorted(users1, users0), max(0, len(users1) - 1))
        both = np.flatnonzero((users1[place] == users0) & (users0 != user)) if len(users1) else []
        if len(both) == 0:
            end -= 1
            continue
        new = both[~np.isin(users0[both], [chain.peer for chain in chains])]
        k = int(rng.choice(new if len(new) else both))
        told = float(ratings0[k]), int(users0[k]), float(ratings1[place[k]])
        own = graph.rating(user, i0), graph.rating(user, i1)
        chains.append(Chain(int(user), own[0], i0, *told, i1, own[1]))
        end -= 2
    return chains[::-1]

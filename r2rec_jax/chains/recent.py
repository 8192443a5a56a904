"""Chains through the user's most recently rated items (selection "recent")."""

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
    """Draws up to `count` chains with one companion, in time order.

    The last chain connects the last two items of `history`, the previous chain the two items before these,
    and so on. If no companion rated both items of a pair, the pair one item earlier is used. The companion is
    drawn uniformly from the users who rated both items, preferring users who are in no other chain.

    Args:
      history: items of the user, oldest first.
      clock: a time on the scale of Graph.clock. Ratings of companions at or after it are ignored.
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
        r10, peer, r11 = float(ratings0[k]), int(users0[k]), float(ratings1[place[k]])
        r00, r01 = graph.rating(user, i0), graph.rating(user, i1)
        chains.append(Chain(int(user), r00, i0, r10, peer, r11, i1, r01))
        end -= 2
    return chains[::-1]

"""Draws the chains that a prompt shows."""

import itertools
from collections.abc import Sequence

import numpy as np

from r2rec_jax.chains import graph as sizes
from r2rec_jax.chains.chain import Chain, Link
from r2rec_jax.chains.companions import SELECTIONS, companions, most_rated, weights
from r2rec_jax.chains.graph import MAX_SPAN, Graph
from r2rec_jax.chains.recent import recent_chains
from r2rec_jax.runtime.errors import UserError

RECENT = "recent"
ENUMERATE = 1 << 14  # edges around a user up to which listing its companions is soonest done
PROPOSALS = 256  # at a time, instead of listing
ROUNDS = 16  # of proposals, before listing after all
TRIES = 256  # loops of several companions tried for each one wanted


def sample_chains(
    graph: Graph,
    user: int,
    count: int,
    rng: np.random.Generator,
    *,
    length: int = 1,
    selection: str = "uniform",
    candidates: np.ndarray = (),
    history: Sequence[int] = (),
    before: int | None = None,
) -> list[Chain]:
    """Draws `count` chains of `length` companions each.

    One companion: formula 1, a companion uniformly, then an ordered pair of distinct shared items.
    Companions are drawn without replacement; only when there are fewer than `count` are they used
    again, each as often as the others. Each chain alone is distributed as formula 1 says.

    Several (the paper is silent): an ordered tuple of distinct companions of formula 1, uniformly
    among those that close a loop with distinct items; then the items uniformly. Items between two
    companions may be new to the user, but are never candidates. Tuples, too, repeat only when no
    others were found in TRIES tries each.

    Args:
      selection: "uniform", or one that weighs companions (companions.weights). Drawing is then in
        proportion to weight among those left; weightless ones come last. Or "recent", loops of one companion
        through the last items of `history` (recent_chains), the latest last.
      candidates: items to rank, in any order: for "candidate_aware", and to be shown in no chain.
      history: the user's items, the oldest first.
      before: peers' ratings at or after this time (seconds) do not exist.

    Returns:
      Fewer than `count` chains, [], where no loop closes or was found.

    Raises:
      UserError: an unknown `selection`, or `length` below 1, or other than 1 of recent chains.
    """
    if selection not in (*SELECTIONS, RECENT) or length < 1:
        known = ", ".join((*SELECTIONS, RECENT))
        raise UserError(f"chains of {length} companions selected {selection!r}: at least 1, {known}")
    clock = graph.clock(before)
    if selection == RECENT:
        if length > 1:
            raise UserError(f"chains of {length} companions selected {RECENT!r}: these have one")
        return recent_chains(graph, user, history, count, rng, clock)
    if selection == "uniform" and length == 1 and _is_wide(graph, user):
        chains = _propose(graph, user, count, int(rng.integers(1 << 63)), clock)
        if chains is not None:
            return chains
    peers = companions(graph, user, clock)
    if len(peers) < length:
        return []
    weight = None if selection == "uniform" else weights(graph, user, peers, selection, candidates, clock)
    if length == 1:
        rounds = [_draw(peers, weight, len(peers), rng) for _ in range(count // len(peers))]
        rounds.append(_draw(peers, weight, count % len(peers), rng))
        return [_close(graph, (user, int(peer)), clock, candidates, rng) for peer in np.concatenate(rounds)]
    loops = _find_loops(graph, user, peers, weight, length, count, clock, candidates, rng)
    rounds = [rng.permutation(len(loops)) for _ in range(-(-count // len(loops)))] if loops else []
    return [_close(graph, loops[k], clock, candidates, rng) for k in itertools.chain(*rounds)][:count]


def _is_wide(graph: Graph, user: int) -> bool:
    """Whether proposals are sooner done than listing. Small graphs need no compiler at all."""
    if len(graph.user_items) <= sizes.COMPILE_ABOVE or most_rated(graph, user) is None:
        return False
    items = graph.items_of(user)
    raters = graph.item_offsets[items + 1] - graph.item_offsets[items]
    return int(raters.sum() - raters.max()) > ENUMERATE


def _propose(graph: Graph, user: int, count: int, key: int, clock: int) -> list[Chain] | None:
    """`count` chains with distinct companions by proposals, or None when too many are rejected.

    Which companions come first is independent of how many proposals it takes, so listing afterwards,
    for None, leaves the distribution as it is.
    """
    from r2rec_jax.chains.proposals import propose_companions

    users, chains = np.full(PROPOSALS, user, np.int32), {}
    items, ratings = graph.user_items, graph.user_ratings
    for first in range(0, ROUNDS * PROPOSALS, PROPOSALS):
        peers, places = propose_companions(graph, users, key, first=first, before=clock)
        for k in np.flatnonzero(peers >= 0):
            r00, r10, r11, r01 = ratings[places[k]].tolist()
            i0, _, i1, _ = items[places[k]].tolist()
            peer = int(peers[k])
            chains.setdefault(peer, Chain(int(user), r00, i0, r10, peer, r11, i1, r01))
            if len(chains) >= count:
                return list(chains.values())[:count]
    return None


def _draw(peers: np.ndarray, weight: np.ndarray | None, count: int, rng) -> np.ndarray:
    """`count` distinct companions in the order drawn, each in proportion to weight among those left."""
    if weight is None:
        return rng.permutation(peers) if count == len(peers) else rng.choice(peers, count, replace=False)
    # The first of exponential clocks running at rate w is drawn in proportion to w (Efraimidis 2006).
    with np.errstate(divide="ignore"):
        rings = rng.exponential(size=len(peers)) / weight
    return peers[np.lexsort((rng.random(len(peers)), rings))[:count]]


def _find_loops(graph, user, peers, weight, length, count, clock, candidates, rng) -> list[tuple[int, ...]]:
    """Up to `count` distinct (user, companions...) that close a loop, in the order drawn."""
    loops = {}
    for _ in range(TRIES * count):
        loop = (user, *_draw(peers, weight, length, rng).tolist())
        if loop not in loops and _closes(_joints(graph, loop, clock, candidates)):
            loops[loop] = None
            if len(loops) == count:
                break
    return list(loops)


def _joints(graph: Graph, loop: tuple[int, ...], clock: int, candidates) -> list[np.ndarray]:
    """The items that each member of the loop shares with the next, the last with the first."""
    user, joints = loop[0], []
    for one, other in zip(loop, (*loop[1:], user), strict=True):
        shared = np.intersect1d(graph.items_of(one), graph.items_of(other), assume_unique=True)
        if clock <= MAX_SPAN:
            dated = [peer for peer in (one, other) if peer != user]
            visible = [all(graph.time(peer, item) < clock for peer in dated) for item in shared]
            shared = shared[np.array(visible, bool)]
        # The user's own history holds no candidate.
        joints.append(shared if user in (one, other) else np.setdiff1d(shared, candidates, True))
    return joints


def _closes(joints: list[np.ndarray], used: tuple[int, ...] = ()) -> bool:
    """Whether distinct items can be chosen, one of each joint."""
    if not joints:
        return True
    # With as many items as joints were left, one of them is always free.
    enough = joints[0][: len(used) + len(joints)]
    return any(item not in used and _closes(joints[1:], (*used, item)) for item in enough)


def _close(graph: Graph, loop: tuple[int, ...], clock: int, candidates, rng) -> Chain:
    """Chooses the items of a loop that closes, uniformly among the choices of distinct ones."""
    joints = _joints(graph, loop, clock, candidates)
    if len(loop) == 2:
        first = int(rng.integers(len(joints[0])))
        second = int(rng.integers(len(joints[0]) - 1))
        second += second >= first
        items = [int(joints[0][first]), int(joints[0][second])]
    else:
        items = []
        while len(set(items)) < len(loop):
            items = [int(rng.choice(shared)) for shared in joints]
    user, peer, *others = loop
    more = [
        Link(graph.rating(other, before), other, graph.rating(other, after), after)
        for other, before, after in zip(others, items[1:-1], items[2:], strict=True)
    ]
    return Chain(
        user=int(user),
        r00=graph.rating(user, items[0]),
        i0=items[0],
        r10=graph.rating(peer, items[0]),
        peer=peer,
        r11=graph.rating(peer, items[1]),
        i1=items[1],
        r01=graph.rating(user, items[-1]),
        more=tuple(more),
    )

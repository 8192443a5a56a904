"""Samples the interaction chains of a prompt."""

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
ENUMERATE = 1 << 14  # edges around a user up to which enumerating companions is fastest
PROPOSALS = 256  # per round, instead of enumeration
ROUNDS = 16  # of proposals, before falling back to enumeration
TRIES = 256  # attempts per requested loop of several companions


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
    """Draws `count` chains with `length` companions each.

    One companion: formula 1 of the paper. A companion is drawn uniformly, then an ordered pair of distinct
    shared items. Companions are drawn without replacement. If there are fewer than `count`, they repeat
    equally often. The marginal distribution of each chain is that of formula 1.

    Several companions (not specified in the paper): draws an ordered tuple of distinct companions of
    formula 1, uniformly among those that close a loop with distinct items, then the items uniformly. Items
    between two companions may be new to the user, but are never candidates. Tuples repeat only if TRIES
    attempts per tuple find no others.

    Args:
      selection: "uniform"; or a kind of `companions.weights`, which draws in proportion to the weights
        without replacement, with zero weights last; or "recent", chains with one companion through the last
        items of `history`, in time order (`recent_chains`).
      candidates: items to rank, in any order. They affect "candidate_aware", and no chain contains them.
      history: the user's items, oldest first.
      before: a time in seconds. Ratings of peers at or after it are ignored.

    Returns:
      The chains: [] if no loop closes or none was found.

    Raises:
      UserError: an unknown `selection`, `length` below 1, or `length` above 1 with "recent".
    """
    if selection not in (*SELECTIONS, RECENT) or length < 1:
        names = ", ".join((*SELECTIONS, RECENT))
        raise UserError(f"chains of {length} companions selected {selection!r}: use at least 1, and {names}")
    clock = graph.clock(before)
    if selection == RECENT:
        if length > 1:
            raise UserError(f"chains of {length} companions selected {RECENT!r}: use one companion")
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
    """Whether proposals are faster than enumeration. False for small graphs, which avoids compilation."""
    if len(graph.user_items) <= sizes.COMPILE_ABOVE or most_rated(graph, user) is None:
        return False
    items = graph.items_of(user)
    raters = graph.item_offsets[items + 1] - graph.item_offsets[items]
    return int(raters.sum() - raters.max()) > ENUMERATE


def _propose(graph: Graph, user: int, count: int, key: int, clock: int) -> list[Chain] | None:
    """`count` chains with distinct companions by proposals, or None if too many proposals are rejected.

    The order of the companions is independent of the number of proposals, so enumerating after None does
    not bias the distribution.
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
    """Draws `count` companions without replacement, in proportion to `weight` (None: uniformly)."""
    if weight is None:
        return rng.permutation(peers) if count == len(peers) else rng.choice(peers, count, replace=False)
    # The smallest of exponential variables with rates w is drawn in proportion to w (Efraimidis 2006).
    with np.errstate(divide="ignore"):
        keys = rng.exponential(size=len(peers)) / weight
    return peers[np.lexsort((rng.random(len(peers)), keys))[:count]]


def _find_loops(graph, user, peers, weight, length, count, clock, candidates, rng) -> list[tuple[int, ...]]:
    """Draws up to `count` distinct tuples (user, companions...) that close a loop."""
    loops = {}
    for _ in range(TRIES * count):
        loop = (user, *_draw(peers, weight, length, rng).tolist())
        if loop not in loops and _closes(_joints(graph, loop, clock, candidates)):
            loops[loop] = None
            if len(loops) == count:
                break
    return list(loops)


def _joints(graph: Graph, loop: tuple[int, ...], clock: int, candidates) -> list[np.ndarray]:
    """The items that each member of the loop shares with the next one, and the last with the first."""
    user, joints = loop[0], []
    for left, right in zip(loop, (*loop[1:], user), strict=True):
        shared = np.intersect1d(graph.items_of(left), graph.items_of(right), assume_unique=True)
        if clock <= MAX_SPAN:
            dated = [peer for peer in (left, right) if peer != user]
            visible = [all(graph.time(peer, item) < clock for peer in dated) for item in shared]
            shared = shared[np.array(visible, bool)]
        # The user's own history contains no candidate.
        joints.append(shared if user in (left, right) else np.setdiff1d(shared, candidates, True))
    return joints


def _closes(joints: list[np.ndarray], used: tuple[int, ...] = ()) -> bool:
    """Whether distinct items can be chosen, one per joint."""
    if not joints:
        return True
    # Among as many items as there are joints in total, one is always unused, so more need not be tried.
    enough = joints[0][: len(used) + len(joints)]
    return any(item not in used and _closes(joints[1:], (*used, item)) for item in enough)


def _close(graph: Graph, loop: tuple[int, ...], clock: int, candidates, rng) -> Chain:
    """Draws the items of a loop that closes, uniformly among the choices of distinct items."""
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

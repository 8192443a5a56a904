"""Pretraining text from a prepared log: what all users rated before their truths, moment by moment.

A moment is a row of the log before its user's cutoff. The user's own past is what stands above it, and what
the row holds is what a model is to foretell. No truth, nor anything that its user rated from then on,
is in any of this text, be it as an item to foretell, in a history, in a chain or among the candidates.
"""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.chains.graph import Graph
from r2rec_jax.chains.proposals import propose_companions
from r2rec_jax.chains.sampler import Chain
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.prompts.ranking import RankingRecord
from r2rec_jax.runtime.errors import UserError

PROPOSALS = (
    800  # of chains for each user; a moment shows some of those that were accepted and lie in its past
)
LEAST = 5  # rated items before a moment of which a ranking is asked


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of a user's history: (item, rating), the oldest first."""

    user: int
    rated: list[tuple[int, float]]


class Moments:
    """An endless set of moments: `window` draws a stretch of history, `record` a query."""

    def __init__(self, dataset: Dataset, graph: Graph, config: ConfigDict):
        """`config` is a config's `prompt` section: how much a record shows.

        Raises UserError for chains of several companions.
        """
        if config.chain_length != 1:
            raise UserError("prompt.chain_length: pretraining shows chains of one companion: leave it at 1")
        self.dataset, self.config = dataset, config
        log = dataset.interactions
        self.user, self.item, self.rating = map(np.asarray, (log.user, log.item, log.rating))
        self.offsets, self.cutoff = np.asarray(log.offsets), np.asarray(dataset.split.cutoff)
        rows = np.arange(len(self.user))
        seen = rows < self.cutoff[self.user]
        self.liked = np.flatnonzero(seen & (self.rating > dataset.split.like_above))
        self.asked = self.liked[self.liked >= self.offsets[self.user[self.liked]] + LEAST]
        self.known_items = np.unique(self.item[seen])
        self.popularity = np.diff(graph.item_offsets)
        self.pool = _Pool(graph, self.user, self.item, rows[seen])

    def window(self, rng: np.random.Generator, width: int) -> Window:
        """Up to `width` items in a row, of users as often as they rated."""
        user = int(self.user[rng.integers(len(self.user))])
        start, stop = int(self.offsets[user]), int(self.cutoff[user])
        last = start + int(rng.integers(1, max(2, stop - start + width)))
        return Window(user, self.rated(max(start, last - width), min(last, stop)))

    def moment(self, rng: np.random.Generator) -> int:
        """A row in which its user rated something that it liked, and LEAST items before."""
        return int(self.asked[rng.integers(len(self.asked))])

    def next_moment(self, row: int, least: int) -> int | None:
        """The first one of the same user `least` rows after `row` or later, None if there is none."""
        place = int(np.searchsorted(self.asked, row + least))
        if place == len(self.asked) or self.user[self.asked[place]] != self.user[row]:
            return None
        return int(self.asked[place])

    def before(self, row: int, most: int) -> list[tuple[int, float]]:
        """What the user of a row rated above it, `most` items at most."""
        return self.rated(max(int(self.offsets[self.user[row]]), row - most), row)

    def record(
        self, row: int, rng: np.random.Generator, *, options: int, history: int, likes: int, chains: int
    ) -> RankingRecord:
        """The query of a moment, among `options` candidates, with up to so many items and chains."""
        user, truth = int(self.user[row]), int(self.item[row])
        start = int(self.offsets[user])
        liked = self.liked[np.searchsorted(self.liked, start) : np.searchsorted(self.liked, row)]
        candidates = rng.permutation(np.append(self._unrated(user, options - 1, rng), truth))
        return RankingRecord(
            user=user,
            demographics=self.dataset.catalog.demographics[user],
            likes=self.item[liked[max(0, len(liked) - likes) :]].tolist(),
            chains=self.pool.draw(user, row, chains, rng),
            candidates=candidates.astype(np.int32),
            popularity=self.popularity[candidates],
            truth=truth,
            history=self.before(row, history),
        )

    def rated(self, start: int, stop: int) -> list[tuple[int, float]]:
        """(item, rating) of these rows of the log."""
        return list(zip(self.item[start:stop].tolist(), self.rating[start:stop].tolist(), strict=True))

    def _unrated(self, user: int, count: int, rng) -> np.ndarray:
        """Distinct items that the user has rated at no time, as the protocol's candidates are."""
        rated = set(self.item[self.offsets[user] : self.offsets[user + 1]].tolist())
        drawn = {}
        while len(drawn) < count:
            for item in self.known_items[rng.integers(len(self.known_items), size=count)].tolist():
                if item not in rated:
                    drawn[item] = None
        return np.array(list(drawn)[:count])


class _Pool:
    """Chains of one companion (formula 1) of every user, and from which row of the log on each is past."""

    def __init__(self, graph: Graph, user: np.ndarray, item: np.ndarray, seen: np.ndarray):
        """`seen`: the rows of the log, columns `user` and `item`, that the graph holds."""
        asked = np.repeat(np.arange(graph.n_users, dtype=np.int32), PROPOSALS)
        peers, places = propose_companions(graph, asked, key=0)
        accepted = np.flatnonzero(peers >= 0)
        self.first = np.searchsorted(asked[accepted], np.arange(graph.n_users + 1))
        self.peers, self.places = peers[accepted], places[accepted]
        self.items, self.ratings = graph.user_items, graph.user_ratings
        # The graph has a user's rows by item, the log by time.
        row_of_edge = seen[np.lexsort((item[seen], user[seen]))]
        self.past_from = row_of_edge[self.places[:, [0, 3]]].max(axis=1)

    def draw(self, user: int, row: int, count: int, rng) -> list[Chain]:
        """Up to `count` chains through items that `user` rated before `row`, with different companions."""
        of_user = slice(*self.first[user : user + 2])
        past = self.first[user] + np.flatnonzero(self.past_from[of_user] < row)
        drawn = {int(self.peers[k]): k for k in rng.permutation(past)[: 2 * count].tolist()}
        return [self._chain(user, k) for k in list(drawn.values())[:count]]

    def _chain(self, user: int, k: int) -> Chain:
        (i0, _, i1, _), (r00, r10, r11, r01) = (
            values[self.places[k]].tolist() for values in (self.items, self.ratings)
        )
        return Chain(user, r00, i0, r10, int(self.peers[k]), r11, i1, r01)

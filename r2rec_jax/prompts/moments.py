"""Pretraining text from a prepared log: what all users rated before their truths, moment by moment.

A moment is a row of the log before its user's cutoff. The user's own past is what stands above it, and what
the row holds is what a model is to foretell. No truth, nor anything that its user rated from then on,
is in any of this text, be it as an item to foretell, in a history or in a chain.

The candidates of a moment are any items, drawn whatever it holds, so a list tells nothing of what comes next.
Where lists held the answer, a model of R2Rec-mini's size came to say any item of a list and knew less of
which: 20 of 3,700 titles are more than its hidden state holds beside what comes next (BUILD.md, R2Rec-mini).
Its answers are constrained to the candidates instead (rollout/constrain.py).
"""

import dataclasses

import numpy as np

from r2rec_jax.chains.graph import Graph
from r2rec_jax.chains.recent import recent_chains
from r2rec_jax.chains.sampler import RECENT
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.prompts.config import PromptConfig
from r2rec_jax.prompts.ranking_prompt import RankingRecord
from r2rec_jax.runtime.errors import UserError

LEAST = 5  # rated items before a moment of which a ranking is asked


@dataclasses.dataclass(frozen=True)
class Window:
    """A stretch of a user's history: (item, rating), the oldest first."""

    user: int
    rated: list[tuple[int, float]]


class Moments:
    """An endless set of moments: `window` draws a stretch of history, `record` a query."""

    def __init__(self, dataset: Dataset, graph: Graph, config: PromptConfig):
        """`config` is a config's `prompt` section: how much a record shows.

        Raises UserError for other chains than those through the latest items.
        """
        if (config.chain_selection, config.chain_length) != (RECENT, 1):
            raise UserError(
                f"prompt.chain_selection={config.chain_selection!r}, chain_length={config.chain_length}: "
                f"pretraining shows chains of selection {RECENT!r} and length 1"
            )
        self.dataset, self.graph, self.config = dataset, graph, config
        log = dataset.interactions
        self.user, self.item, self.rating = map(np.asarray, (log.user, log.item, log.rating))
        self.offsets, self.cutoff = np.asarray(log.offsets), np.asarray(dataset.split.cutoff)
        rows = np.arange(len(self.user))
        seen = rows < self.cutoff[self.user]
        self.liked = np.flatnonzero(seen & (self.rating > dataset.split.like_above))
        self.asked = self.liked[self.liked >= self.offsets[self.user[self.liked]] + LEAST]
        self.known_items = np.unique(self.item[seen])
        self.popularity = np.diff(graph.item_offsets)

    def window(self, rng: np.random.Generator, width: int) -> Window:
        """Up to `width` items in a row, of users as often as they rated."""
        user = int(self.user[rng.integers(len(self.user))])
        start, stop = int(self.offsets[user]), int(self.cutoff[user])
        last = start + int(rng.integers(1, max(2, stop - start + width)))
        return Window(user, self.rated(max(start, last - width), min(last, stop)))

    def moment(self, rng: np.random.Generator) -> int:
        """A row in which its user rated something that it liked, and LEAST items before."""
        return int(self.asked[rng.integers(len(self.asked))])

    def before(self, row: int, most: int) -> list[tuple[int, float]]:
        """What the user of a row rated above it, `most` items at most."""
        return self.rated(max(int(self.offsets[self.user[row]]), row - most), row)

    def record(
        self, row: int, rng: np.random.Generator, *, options: int, history: int, likes: int, chains: int
    ) -> RankingRecord:
        """The query of a moment, with so many candidates, and up to so many items and chains."""
        user, truth = int(self.user[row]), int(self.item[row])
        start = int(self.offsets[user])
        liked = self.liked[np.searchsorted(self.liked, start) : np.searchsorted(self.liked, row)]
        candidates = self.known_items[rng.integers(len(self.known_items), size=options)]
        return RankingRecord(
            user=user,
            demographics=self.dataset.catalog.demographics[user],
            likes=self.item[liked[max(0, len(liked) - likes) :]].tolist(),
            chains=recent_chains(self.graph, user, self.item[start:row], chains, rng),
            candidates=candidates.astype(np.int32),
            popularity=self.popularity[candidates],
            truth=truth,
            history=self.before(row, history),
        )

    def rated(self, start: int, stop: int) -> list[tuple[int, float]]:
        """(item, rating) of these rows of the log."""
        return list(zip(self.item[start:stop].tolist(), self.rating[start:stop].tolist(), strict=True))

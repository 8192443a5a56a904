"""Ranking prompts as a random-access source: user -> chains -> text -> tokens -> padded batch."""

import dataclasses

import numpy as np
from ml_collections import ConfigDict

from r2rec_jax.chains.graph import build_graph
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.pipeline.batches import pad
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.ranking import RankingRecord, make_record, ranking_prompt, shown_titles
from r2rec_jax.prompts.wording import wording


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
    """A query in ids, its text, its tokens, and the candidates as the text names them."""

    record: RankingRecord
    text: str
    tokens: np.ndarray
    titles: list[str]


class RankingPrompts:
    """Prompt k is user k's; the same whatever the order or the number of workers."""

    def __init__(self, dataset: Dataset, users: np.ndarray, chat: Chat, config: ConfigDict, seed: int):
        """`config` is a config's `prompt` section; `seed` draws the chains."""
        self.dataset, self.users, self.chat, self.config, self.seed = (
            dataset,
            users,
            chat,
            config,
            seed,
        )
        self.graph = build_graph(dataset)
        self.wording = wording(config.wording)

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, k: int) -> Prompt:
        c = self.config
        record = make_record(
            self.dataset,
            self.graph,
            int(self.users[k]),
            chains=c.chains,
            likes=c.likes,
            seed=self.seed,
        )
        catalog = self.dataset.catalog
        text = ranking_prompt(record, catalog, self.wording, answer=c.answer, places=c.places)
        tokens = np.array(self.chat.prompt(text), np.int32)
        return Prompt(record, text, tokens, shown_titles(record, catalog, self.wording))


def pad_prompts(prompts: list[Prompt], buckets: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """(tokens int32 [B, P], length int32 [B]) of a batch, right-padded to a bucket."""
    rows = [prompt.tokens for prompt in prompts]
    return pad(rows, buckets), np.array([len(row) for row in rows], np.int32)

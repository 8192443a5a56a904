"""Training examples of LLaRA (Liao et al. 2024, arXiv 2312.02445): predict the next item among candidates.

The curriculum begins with titles only and moves to titles with item tokens.
"""

import dataclasses

import numpy as np

from r2rec_jax.pipeline.prompt_source import RankingPrompts, closed_answer, fit
from r2rec_jax.prompts.answer_parser import ORDER


class LLaRAExamples:
    """Example k of `rows`: {'prompt', 'response', 'mask'}. The response is the title of the held-out item.

    All response tokens have loss. The order of the users is drawn anew each epoch. Items are shown as titles,
    or as titles with item tokens. The probability of item tokens increases linearly from 0 to 1 with k. Row k
    is a function of (seed, k).
    """

    def __init__(self, prompts: RankingPrompts, rows: int):
        """`prompts` must have `config.item_tokens` set."""
        self.prompts, self.rows = prompts, rows
        self.titles_only = dataclasses.replace(prompts.config, item_tokens=False)

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        source, seed = self.prompts, self.prompts.seed
        epoch, place = divmod(int(k), len(source))
        record = source.record(int(np.random.default_rng([seed, epoch]).permutation(len(source))[place]))
        hybrid = np.random.default_rng([seed, k, 1]).random() < k / self.rows
        config = source.config if hybrid else self.titles_only
        prompt = fit(record, source.dataset.catalog, source.wording, source.chat, config)
        title = prompt.titles[record.candidates.tolist().index(record.truth)]
        response = closed_answer(source.chat, f"{ORDER} {title}")
        return {
            "prompt": prompt.tokens,
            "response": np.array(response, np.int32),
            "mask": np.ones(len(response), np.float32),
        }

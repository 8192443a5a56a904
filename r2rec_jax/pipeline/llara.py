"""LLaRA's lessons (Liao et al. 2024, arXiv 2312.02445): the next item of 20, in words, then in items too."""

import dataclasses

import numpy as np

from r2rec_jax.pipeline.prompt_source import RankingPrompts, closed_answer, fit
from r2rec_jax.prompts.answer_parser import ORDER


class LLaRAExamples:
    """Row k of a run of `rows`: {'prompt', 'response', 'mask'}; the answer names the truth, all of it learnt.

    Users come in an order drawn anew each epoch. A prompt tells items by title alone or by title and token;
    the chance of the latter grows from 0 to 1 with k. So row k is a function of (seed, k).
    """

    def __init__(self, prompts: RankingPrompts, rows: int):
        """`prompts` are those of the end, with `config.item_tokens`."""
        self.prompts, self.rows = prompts, rows
        self.easy = dataclasses.replace(prompts.config, item_tokens=False)

    def __len__(self) -> int:
        return self.rows

    def __getitem__(self, k: int) -> dict[str, np.ndarray]:
        source, seed = self.prompts, self.prompts.seed
        epoch, place = divmod(int(k), len(source))
        record = source.record(int(np.random.default_rng([seed, epoch]).permutation(len(source))[place]))
        hybrid = np.random.default_rng([seed, k, 1]).random() < k / self.rows
        config = source.config if hybrid else self.easy
        prompt = fit(record, source.dataset.catalog, source.wording, source.chat, config)
        title = prompt.titles[record.candidates.tolist().index(record.truth)]
        response = closed_answer(source.chat, f"{ORDER} {title}")
        return {
            "prompt": prompt.tokens,
            "response": np.array(response, np.int32),
            "mask": np.ones(len(response), np.float32),
        }

"""Users ranked by a policy: each once, in order, whatever the batches."""

import dataclasses
import types

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from r2rec_jax.data.generate import generate
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.evaluate.policy import complete, rank_users, summary
from r2rec_jax.model.config import LlamaConfig
from r2rec_jax.model.llama import Llama, init_variables
from r2rec_jax.pipeline.prompts import RankingPrompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.rollout.engine import Engine, Rollout, SamplingConfig

CONFIG = ConfigDict(
    {
        "wording": "compact",
        "answer": "titles",
        "places": 3,
        "reasoning": True,
        "likes": 2,
        "chains": 1,
        "buckets": (160,),
        "chain_length": 1,
        "chain_selection": "uniform",
    }
)


@pytest.fixture(scope="module")
def prompts(tmp_path_factory) -> RankingPrompts:
    """Seven users' prompts, under a tokenizer that knows the titles."""
    log, catalog = generate(seed=3, users=60, items=64, ratings_per_user=14)
    dataset = Dataset("small", log, catalog, split(log, seed=0, sizes={"evaluation": 7}))
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [f"Kai gave {a}, {b} a 4, and Candidates: {b}." for a in catalog.title for b in catalog.title[:9]]
    train_tokenizer(texts, 500).save(str(folder / "tokenizer.json"))
    return RankingPrompts(dataset, dataset.split.users["evaluation"], Chat(folder), CONFIG, 0)


class Teller:
    """An engine whose completion of a prompt names its candidates from the one at `sample` on."""

    def __init__(self, prompts):
        self.prompts = {p.record.user: p for p in prompts}
        self.chat, self.calls = prompts.chat, []

    def __call__(self, _, prompt_BP, prompt_length_B, *, samples, seed, prompt_ids):
        self.calls.append(
            types.SimpleNamespace(tokens=prompt_BP, length=prompt_length_B, ids=prompt_ids, seed=seed)
        )
        rows = []
        for user in prompt_ids:
            titles = self.prompts[int(user)].titles
            for g in range(samples):
                answer = "Order: " + " > ".join(titles[g : g + 3])
                rows.append(self.chat.completion(f"User {user} it is.", answer))
        tokens = np.zeros((len(rows), 120), np.int32)
        for row, ids in zip(tokens, rows, strict=True):
            row[: len(ids)] = ids
        length = np.array([len(ids) for ids in rows], np.int32)
        truncated = np.zeros(len(rows), bool)
        truncated[-1] = True
        return Rollout(tokens, length, truncated, np.zeros(tokens.shape, np.float32))


def test_completions_are_judged_with_the_prompt_they_continue(prompts):
    teller, batch = Teller(prompts), [prompts[k] for k in (4, 1, 3)]
    rollout, judged = complete(teller, {}, batch, prompts.chat, CONFIG, samples=2, seed=9)
    assert len(judged) == len(rollout.tokens) == 6
    assert [one.prompt for one in judged] == [p for p in batch for _ in range(2)]
    for row, one in enumerate(judged):
        g = row % 2
        assert one.ranking.places == [g, g + 1, g + 2] and one.ranking.valid
        at = one.prompt.record.candidates.tolist().index(one.prompt.record.truth)
        assert one.truth_rank == (at - g + 1 if g <= at < g + 3 else 0)
        assert one.reasoning == f"User {one.prompt.record.user} it is."
    assert [one.truncated for one in judged] == [False] * 5 + [True]
    (call,) = teller.calls
    assert call.seed == 9 and call.ids.tolist() == [p.record.user for p in batch]
    for row, length, prompt in zip(call.tokens, call.length, batch, strict=True):
        np.testing.assert_array_equal(row[:length], prompt.tokens)
        assert not row[length:].any()


@pytest.mark.parametrize("batch_size", [1, 3, 7, 10])
def test_one_result_a_user_in_order_and_the_last_batch_filled(prompts, batch_size):
    teller = Teller(prompts)
    judged = list(rank_users(teller, {}, prompts, batch_size=batch_size, seed=0))
    assert [one.prompt.record.user for one in judged] == prompts.users.tolist()
    assert all(call.tokens.shape == (batch_size, 160) for call in teller.calls)
    assert len(teller.calls) == -(-7 // batch_size)


def test_samples_do_not_depend_on_the_batch_size(prompts):
    vocabulary = prompts.chat.tokenizer.get_vocab_size()
    model = Llama(LlamaConfig(vocabulary, 16, 24, 1, 2, 1, 8, 1e-5, 1000.0, None, 256, False))
    variables = jax.jit(lambda: init_variables(model, 0))()
    engine = Engine(model, prompts.chat.end, SamplingConfig(6, 1.0, 0.9, chunk=6))
    said = [
        [one.reasoning for one in rank_users(engine, variables, prompts, batch_size=size, seed=5)]
        for size in (7, 3)
    ]
    assert said[0] == said[1]
    assert len(set(said[0])) == 7
    other = [one.reasoning for one in rank_users(engine, variables, prompts, batch_size=3, seed=6)]
    assert other != said[0]


def test_summary_is_over_all_completions(prompts):
    _, judged = complete(
        Teller(prompts), {}, [prompts[0], prompts[1]], prompts.chat, CONFIG, samples=2, seed=0
    )
    judged[0] = dataclasses.replace(judged[0], prompt=dataclasses.replace(prompts[0], dropped_chains=2))
    rates = {"valid_rate": 1.0, "truncation_rate": 0.25, "statements": 1.0}
    assert summary(judged) == rates | {"dropped_chains": 0.5, "dropped_likes": 0.0}

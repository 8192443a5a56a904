"""Users ranked by a policy: each once, in order, whatever the batches."""

import dataclasses

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from r2rec_jax.data.generate import generate
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.llama import Llama, init_variables
from r2rec_jax.pipeline.prompt_source import RankingPrompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.rollout.completions import complete, complete_and_parse, completion_rates
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.rollout.engine import Engine
from r2rec_jax.rollout.parsed_completion import ParsedCompletion, parse_completion
from r2rec_jax.rollout.slots import Rollout

CONFIG = ConfigDict(
    {
        "wording": "compact",
        "answer": "titles",
        "places": 3,
        "reasoning": True,
        "likes": 2,
        "history": 0,
        "item_tokens": False,
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
        self.sampling = RolloutConfig(max_tokens=120, temperature=1.0)

    def __call__(self, _, prompts, *, samples, seed):
        assert prompts.allowed is None
        self.calls.append((prompts, seed))
        rows = []
        for user in prompts.id:
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
        rollout = Rollout.empty(*tokens.shape)
        rollout.tokens, rollout.length, rollout.truncated = tokens, length, truncated
        for b in range(len(prompts.id))[::-1]:
            yield b, rollout[b * samples : (b + 1) * samples]


def judged_of(chat, prompts, rollout, samples) -> list[ParsedCompletion]:
    return [
        parse_completion(prompts[row // samples], tokens[:length], bool(truncated), chat, CONFIG)
        for row, (tokens, length, truncated) in enumerate(
            zip(rollout.tokens, rollout.length, rollout.truncated, strict=True)
        )
    ]


def test_completions_continue_their_prompts(prompts):
    teller, batch = Teller(prompts), [prompts[k] for k in (4, 1, 3)]
    received = list(complete(teller, {}, batch, CONFIG.buckets, samples=2, seed=9))
    assert [(k, len(group.tokens)) for k, group in received] == [(2, 2), (1, 2), (0, 2)]
    rollout = Rollout.of_groups(received)
    judged = judged_of(prompts.chat, batch, rollout, 2)
    assert len(judged) == len(rollout.tokens) == 6
    assert [one.prompt for one in judged] == [p for p in batch for _ in range(2)]
    for row, one in enumerate(judged):
        g = row % 2
        assert one.ranking.places == [g, g + 1, g + 2] and one.ranking.valid
        at = one.prompt.record.candidates.tolist().index(one.prompt.record.truth)
        assert one.truth_rank == (at - g + 1 if g <= at < g + 3 else 0)
        assert one.reasoning == f"User {one.prompt.record.user} it is."
    assert [one.truncated for one in judged] == [False] * 5 + [True]
    ((call, seed),) = teller.calls
    assert seed == 9 and call.id.tolist() == [p.record.user for p in batch]
    for row, length, prompt in zip(call.tokens, call.length, batch, strict=True):
        np.testing.assert_array_equal(row[:length], prompt.tokens)
        assert not row[length:].any()


def test_prompts_of_one_update_share_a_bucket(prompts):
    batch = sorted((prompts[k] for k in range(7)), key=lambda prompt: len(prompt.tokens))
    buckets = (len(batch[2].tokens), 160)
    for one_bucket, widths in ((False, list(buckets)), (True, [160])):
        teller = Teller(prompts)
        ended = complete(teller, {}, batch, buckets, samples=1, seed=0, one_bucket=one_bucket)
        assert sorted(k for k, _ in ended) == list(range(7))
        assert [call.tokens.shape[1] for call, _ in teller.calls] == widths


@pytest.fixture(scope="module")
def model(prompts) -> tuple[Llama, dict]:
    vocabulary = prompts.chat.tokenizer.get_vocab_size()
    model = Llama(LlamaConfig(vocabulary, 16, 24, 1, 2, 1, 8, 1e-5, 1000.0, None, 256, False))
    return model, jax.jit(lambda: init_variables(model, 0))()


def ranked(prompts, model, *, seed=5, slots=0, **how) -> dict[int, ParsedCompletion]:
    sampling = RolloutConfig(max_tokens=40, temperature=1.0, top_p=0.9, **how)
    engine = Engine(model[0], prompts.chat.end, sampling, slots=slots)
    pairs = list(complete_and_parse(engine, model[1], list(prompts), prompts.chat, prompts.config, seed=seed))
    assert sorted(k for k, _ in pairs) == list(range(7))
    return {k: one for k, (one,) in pairs}


def test_what_a_user_gets_depends_neither_on_slots_nor_on_buckets(prompts, model):
    whole = ranked(prompts, model, slots=7)
    assert [whole[k].prompt.record.user for k in range(7)] == prompts.users.tolist()
    said = [whole[k].reasoning for k in range(7)]
    assert len(set(said)) == 7
    lengths = sorted(len(prompts[k].tokens) for k in range(7))
    wide = dataclasses.replace(prompts.config, buckets=(lengths[3], 160))
    bucketed = RankingPrompts(prompts.dataset, prompts.users, prompts.chat, wide, 0)
    for other in (ranked(prompts, model, slots=3), ranked(bucketed, model, slots=2)):
        assert [other[k].reasoning for k in range(7)] == said
    assert [ranked(prompts, model, seed=6)[k].reasoning for k in range(7)] != said


def test_constrained_answers_are_valid_where_free_ones_are_not(prompts, model):
    assert not any(one.ranking.valid for one in ranked(prompts, model).values())
    assert all(one.ranking.valid for one in ranked(prompts, model, constrained=True).values())


def test_rates_are_over_all_completions(prompts):
    batch = [prompts[0], prompts[1]]
    ended = complete(Teller(prompts), {}, batch, CONFIG.buckets, samples=2, seed=0)
    judged = judged_of(prompts.chat, batch, Rollout.of_groups(ended), 2)
    judged[0] = dataclasses.replace(judged[0], prompt=dataclasses.replace(prompts[0], dropped_chains=2))
    rates = {"valid_rate": 1.0, "truncation_rate": 0.25, "statements": 1.0}
    assert completion_rates(judged) == rates | {"dropped_chains": 0.5, "dropped_likes": 0.0}

"""Ranking prompts as a source: user k's prompt, the same whenever and wherever it is asked for."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from r2rec_jax.data.generate import generate
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.pipeline.batches import batches
from r2rec_jax.pipeline.prompt_source import RankingPrompts, dropped_message, pad_prompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.runtime.errors import UserError

CONFIG = ConfigDict(
    {
        "wording": "compact",
        "answer": "titles",
        "places": 3,
        "reasoning": True,
        "likes": 5,
        "history": 0,
        "item_tokens": False,
        "chains": 3,
        "buckets": (400, 800),
        "chain_length": 1,
        "chain_selection": "uniform",
    }
)


@pytest.fixture(scope="module")
def dataset() -> Dataset:
    log, catalog = generate(seed=3, users=60, items=64, ratings_per_user=14)
    return Dataset("small", log, catalog, split(log, seed=0, sizes={"grpo": 9}))


@pytest.fixture(scope="module")
def chat(tmp_path_factory) -> Chat:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["Kai gave it a 4, so it fits."], 300).save(str(folder / "tokenizer.json"))
    return Chat(folder)


def source(dataset, chat, seed=0, **changes) -> RankingPrompts:
    config = CONFIG.copy_and_resolve_references()
    config.update(changes)
    return RankingPrompts(dataset, dataset.split.users["grpo"], chat, config, seed)


def test_prompt_k_is_user_ks(dataset, chat):
    prompts = source(dataset, chat)
    assert len(prompts) == 9
    for k, user in enumerate(dataset.split.users["grpo"]):
        prompt = prompts[k]
        assert prompt.record.user == user
        assert prompt.record.truth == dataset.split.truth[user]
        assert prompt.tokens.dtype == np.int32 and prompt.tokens.tolist() == chat.prompt(prompt.text)
        assert prompt.titles == [dataset.catalog.title[item] for item in prompt.record.candidates]
        assert all(title in prompt.text for title in prompt.titles)


def test_the_order_of_asking_changes_nothing(dataset, chat):
    forth, back = source(dataset, chat), source(dataset, chat)
    texts = [forth[k].text for k in range(9)]
    assert [back[k].text for k in reversed(range(9))] == texts[::-1]
    assert len(set(texts)) == 9


def test_the_seed_draws_the_chains_alone(dataset, chat):
    one, other = source(dataset, chat)[0], source(dataset, chat, seed=1)[0]
    assert one.record.chains != other.record.chains
    assert one.record.likes == other.record.likes and one.titles == other.titles


def test_settings_reach_the_prompt(dataset, chat):
    prompt = source(dataset, chat, likes=2, chains=1)[0]
    assert len(prompt.record.likes) == 2 and len(prompt.record.chains) == 1
    assert source(dataset, chat, wording="movies", buckets=(8000,))[0].text != prompt.text
    with pytest.raises(UserError, match="compact"):
        source(dataset, chat, wording="compct")


def test_what_is_too_long_loses_chains_then_likes_and_never_a_candidate(dataset, chat):
    whole = source(dataset, chat)[0]
    lengths = {}
    for budget in range(len(whole.tokens), 0, -1):
        try:
            prompt = source(dataset, chat, buckets=(10, budget))[0]
        except UserError as error:
            user = whole.record.user
            assert str(error).startswith(
                f"the candidates of user {user} alone need"
            ) and "prompt.buckets" in str(error)
            break
        assert len(prompt.tokens) <= budget
        kept = len(prompt.record.chains), len(prompt.record.likes)
        assert kept == (3 - prompt.dropped_chains, 5 - prompt.dropped_likes)
        assert kept[0] == 0 or kept[1] == 5  # every chain goes before the first like
        assert prompt.record.chains == whole.record.chains[3 - kept[0] :]  # the last is the latest
        assert prompt.record.likes == whole.record.likes[5 - kept[1] :]  # the oldest go first
        assert prompt.titles == whole.titles and all(title in prompt.text for title in whole.titles)
        if kept not in lengths:
            lengths[kept] = len(prompt.tokens)
        # Nothing is dropped without need: what was kept at larger budgets does not fit.
        assert all(lengths[other] > budget for other in lengths if sum(other) > sum(kept))
    assert set(lengths) == {(3, 5), (2, 5), (1, 5), *((0, likes) for likes in range(6))}


def test_rated_history_stands_where_chains_and_likes_did(dataset, chat):
    """ChatRec's prompt: what the log says of the user's last rows, in order, and neither chain nor like."""
    log, changes = dataset.interactions, {"history": 4, "likes": 0, "chains": 0, "reasoning": False}
    for k, user in enumerate(dataset.split.users["grpo"]):
        rows = range(dataset.split.cutoff[user] - 4, dataset.split.cutoff[user])
        told = ", ".join(f"{dataset.catalog.title[log.item[row]]} a {log.rating[row]:g}" for row in rows)
        prompt = source(dataset, chat, **changes)[k]
        assert f"Kai gave {told}.\nCandidates: " in prompt.text
        assert not prompt.record.likes and not prompt.record.chains
    shorter = source(dataset, chat, **changes, buckets=(len(prompt.tokens) - 1,))[k]
    assert shorter.record.history == prompt.record.history[1:] and shorter.dropped_likes == 1
    assert shorter.titles == prompt.titles


def test_without_reasoning_the_think_block_is_closed(dataset, chat):
    prompt, bare = source(dataset, chat)[0], source(dataset, chat, reasoning=False)[0]
    assert bare.tokens.tolist() == [*chat.prompt(bare.text), chat.end_think]
    assert prompt.tokens.tolist() == chat.prompt(prompt.text)
    told = chat.completion("", "Order: x")
    answer = told[told.index(chat.end_think) + 1 :]
    assert chat.split([*bare.tokens[-1:].tolist(), *answer]) == ("", "Order: x")


def test_prompts_pass_through_grain_whole(dataset, chat):
    prompts = source(dataset, chat)
    iterator = batches(prompts, batch_size=3, seed=0, shuffle=True, to_batch=list)
    epoch = [prompt for _ in range(3) for prompt in next(iterator)]
    assert sorted(p.record.user for p in epoch) == sorted(prompts.users.tolist())


def test_prompts_of_a_batch_share_a_bucket(dataset, chat):
    lengths = sorted(len(source(dataset, chat)[k].tokens) for k in range(9))
    prompts = source(dataset, chat, buckets=(lengths[3], lengths[5], lengths[-1]))  # of 4, 2 and 3 prompts
    widths = prompts.widths()
    for k, width in enumerate(widths):
        assert width == min(b for b in prompts.config.buckets if b >= len(prompts[k].tokens))
    bucket = dict(zip(prompts.users.tolist(), widths.tolist(), strict=True))
    iterator = batches(prompts, batch_size=2, seed=0, shuffle=True, to_batch=list, lengths=widths)
    for _ in range(8):  # four batches an epoch; at most one for each border between buckets is mixed
        epoch = [[bucket[prompt.record.user] for prompt in next(iterator)] for _ in range(4)]
        assert sum(len(set(batch)) > 1 for batch in epoch) <= 2


def test_padding(dataset, chat):
    batch = [source(dataset, chat, chains=chains)[k] for k, chains in ((0, 3), (1, 0))]
    tokens, length = pad_prompts(batch, CONFIG.buckets)
    assert tokens.dtype == length.dtype == np.int32 and tokens.shape[1] in CONFIG.buckets
    for row, n, prompt in zip(tokens, length, batch, strict=True):
        np.testing.assert_array_equal(row[:n], prompt.tokens)
        assert n == len(prompt.tokens) and not row[n:].any()
    with pytest.raises(UserError, match="add a larger bucket"):
        pad_prompts(batch, (10,))


def test_more_places_than_candidates_are_refused_before_any_prompt(dataset, chat):
    with pytest.raises(UserError, match=r"prompt.places=21: the data have 20 candidates.*at most 20"):
        source(dataset, chat, places=21)
    assert len(source(dataset, chat, places=20)[0].titles) == 20


def test_what_does_not_fit_is_told_and_nothing_is_told_of_nothing():
    assert dropped_message(25, 13, (64, 640)) == (
        "25 chains and 13 likes did not fit prompt.buckets, the largest of which is 640 tokens"
    )
    assert dropped_message(0, 0.0, (64,)) == ""

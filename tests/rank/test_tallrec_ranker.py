"""Yes/No ranking against whole rows through the plain forward pass."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from r2rec_jax.data.generate import generate
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.llama import Llama, head, init_variables
from r2rec_jax.pipeline.prompt_source import RankingPrompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.rank.tallrec_ranker import TALLRecRanker
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh

CONFIG = ConfigDict({"wording": "compact", "answer": "titles", "places": 3, "reasoning": False, "likes": 0})
CONFIG.update({"chains": 0, "history": 4, "buckets": (64, 96), "item_tokens": False})
CONFIG.update({"chain_length": 1, "chain_selection": "uniform"})
EVERYBODY = set(range(5))


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> RankingPrompts:
    log, catalog = generate(seed=3, users=60, items=64, ratings_per_user=14)
    dataset = Dataset("small", log, catalog, split(log, seed=0, sizes={"evaluation": 5}, candidates=6))
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [
        f"Kai gave {a}, {b} what? Kai is less fond of {b}." for a in catalog.title for b in catalog.title
    ]
    train_tokenizer(texts, 500).save(str(folder / "tokenizer.json"))
    return RankingPrompts(dataset, dataset.split.users["evaluation"], Chat(folder), CONFIG, 0)


@pytest.fixture(scope="module")
def model(source) -> tuple[Llama, dict]:
    vocabulary = source.chat.tokenizer.get_vocab_size()
    model = Llama(LlamaConfig(vocabulary, 16, 24, 1, 2, 1, 8, 1e-5, 1000.0, None, 256, False))
    variables = jax.jit(lambda: init_variables(model, 0))()
    return model, jax.tree.map(lambda leaf: 3 * leaf, variables)


def ranked(source, model, variables, wanted=EVERYBODY, batch_size=2) -> dict:
    found = TALLRecRanker(model, source, make_mesh(1), batch_size)(variables, wanted)
    return {k: judged for k, _, judged in found}


def test_candidates_stand_by_the_probability_of_a_yes(source, model):
    model, variables = model
    chat, dataset = source.chat, source.dataset

    @jax.jit
    def dense(row):
        return jax.nn.log_softmax(model.apply(variables, row[None])[0][0] @ head(variables["params"]))

    def logprob(turn, answer):
        row = np.zeros(160, np.int32)
        row[: len(turn) + len(answer)] = turn + answer
        return np.asarray(dense(row))[np.arange(len(turn) - 1, len(turn) + len(answer) - 1), answer].sum()

    log, titles = dataset.interactions, dataset.catalog.title
    found = ranked(source, model, variables)
    assert set(found) == EVERYBODY
    for k, user in enumerate(dataset.split.users["evaluation"]):
        cutoff = dataset.split.cutoff[user]
        text = ""
        for how, liked in (("fond", True), ("less fond", False)):
            rows = [row for row in range(cutoff - 4, cutoff) if (log.rating[row] > 3) == liked]
            names = ", ".join(titles[log.item[row]] for row in rows)
            text += f"Kai is {how} of {names}.\n" if rows else ""
        odds = []
        for item in dataset.split.candidates[user]:
            (genre,) = dataset.catalog.genres[item]
            turn = [*chat.prompt(f"{text}Kai gave {titles[item]}, a {genre} what?"), chat.end_think]
            yes, no = (
                float(logprob(turn, [*chat.encode(f"\n\nKai gave it a {mark}."), chat.end]))
                for mark in (5, 2)
            )
            odds.append(yes - no)  # P(yes) / (P(yes) + P(no)) grows with it
        judged = found[k]
        order = judged.ranking.places
        assert sorted(order) == list(range(6)) and judged.ranking.valid
        assert np.diff(np.array(odds)[order]).max() < 1e-3 and np.ptp(odds) > 1
        place = dataset.split.candidates[user].tolist().index(dataset.split.truth[user])
        assert judged.truth_rank == order.index(place) + 1
        assert judged.prompt.text.startswith(text) and judged.prompt.text.count("what?") == 6
        assert judged.answer == "Order: " + " > ".join(judged.prompt.titles[c] for c in order[:3])


def test_the_rest_ranked_later_is_ranked_alike(source, model):
    whole = ranked(source, *model)
    rest = ranked(source, *model, wanted={4})
    assert 4 in rest and all(rest[k].ranking == whole[k].ranking for k in rest)


def test_numbers_that_are_none_are_named(source, model):
    broken = jax.tree.map(lambda leaf: leaf * np.nan, model[1])
    with pytest.raises(UserError, match="log-probabilities are not numbers"):
        ranked(source, model[0], broken)

"""Trials against a walk through whole rows of a small random model."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from r2rec_jax.chains.graph import build_graph
from r2rec_jax.faithful.edits import Editor
from r2rec_jax.faithful.trials import OWN, REASONINGS, Trials, half
from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.llama import Llama, head, init_variables
from r2rec_jax.pipeline.prompt_source import RankingPrompts
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.rank.policy_ranker import PolicyRanker
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.runtime.mesh import make_mesh

SECTION = {"wording": "compact", "answer": "titles", "places": 1, "reasoning": True, "likes": 2}
SECTION |= {"history": 0, "chains": 2, "chain_length": 1, "chain_selection": "uniform"}
SECTION |= {"item_tokens": False, "buckets": (160,)}
USERS = 4


@pytest.fixture(scope="module")
def chat(dataset, tmp_path_factory) -> Chat:
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [f"Kai gave {a}, {b} a 4, and Order: {a}" for a in dataset.catalog.title for b in ("Jo", "Lea")]
    train_tokenizer(texts, 500).save(str(folder / "tokenizer.json"))
    return Chat(folder)


@pytest.fixture(scope="module")
def model(chat) -> tuple[Llama, dict]:
    vocabulary = chat.tokenizer.get_vocab_size()
    model = Llama(LlamaConfig(vocabulary, 16, 24, 1, 2, 1, 8, 1e-5, 1000.0, None, 256, False))
    variables = jax.jit(lambda: init_variables(model, 0))()
    return model, jax.tree.map(lambda leaf: 3 * leaf, variables)  # surer of itself


@pytest.fixture(scope="module")
def edited(dataset, chat) -> list:
    section = ConfigDict(SECTION)
    prompts = RankingPrompts(dataset, dataset.split.users["evaluation"], chat, section, 0)
    edit = Editor(dataset.catalog, build_graph(dataset), prompts.wording, chat, section)
    found = [one for k in range(len(prompts)) if (one := edit(prompts[k], 0)).prompts][:USERS]
    assert len(found) == USERS
    return found


@pytest.fixture(scope="module")
def rank(chat, model) -> PolicyRanker:
    """Two runs of two users at once: blocks of two users."""
    sampling = RolloutConfig(max_tokens=24, chunk=24, temperature=1.0)
    return PolicyRanker(model[0], chat, sampling, make_mesh(1), mode="likelihood", runs=2, samples=1, rows=4)


def tried(rank, model, edited, wanted=frozenset(range(USERS)), **changes) -> dict:
    trials = Trials(rank, ConfigDict(SECTION | changes))
    found = trials(model[1], edited, seed=5, wanted=wanted)
    return {(k, run): trial for k, run, trial in found}


def test_scores_are_of_each_prompt_after_its_reasoning(chat, model, rank, edited):
    """Edits after what the model says of the edited prompt, the own prompt after what it did not say."""
    section = ConfigDict(SECTION)
    found = tried(rank, model, edited)
    assert set(found) == {(k, run) for k in range(USERS) for run in (0, 1)}
    end, opening = [chat.end_think], chat.encode("\n\nOrder:")

    @jax.jit
    def logprobs(rows_CT):
        return jax.nn.log_softmax(model[0].apply(model[1], rows_CT)[0] @ head(model[1]["params"]))

    def score(prompt, said) -> list[float]:
        before = [*prompt.tokens, *said, *end, *opening]
        names = [[*chat.encode(f" {title}"), chat.end] for title in prompt.titles]
        rows = np.zeros((20, 256), np.int32)
        for row, name in zip(rows, names, strict=True):
            row[: len(before) + len(name)] = [*before, *name]
        every = np.asarray(logprobs(rows))
        places = [len(before) - 1 + np.arange(len(name)) for name in names]
        return [every[c, places[c], name].sum() for c, name in enumerate(names)]

    own = [thought.tokens for one in edited for thought in rank.reason(model[1], [one.prompt], section, 5)]
    for k, run in ((0, 0), (0, 1), (3, 1)):
        one, trial = edited[k], found[k, run]
        assert set(trial.score_C) == {OWN, *one.prompts, *REASONINGS}
        said = own[2 * k + run]
        assert trial.reasoning == chat.decode(said)
        reasonings = {OWN: said, "none": [], "half": half(chat, said)}
        # Blocks are of two users, each of whom gets the other's.
        reasonings["another user's"] = own[2 * (k ^ 1) + run]
        for name, tokens in reasonings.items():
            np.testing.assert_allclose(trial.score_C[name], score(one.prompt, tokens), rtol=1e-4)
        for name in ("cut", "renamed", "like_cut"):
            thoughts = rank.reason(model[1], [one.prompts[name]], section, 5)
            wanted = score(one.prompts[name], thoughts[run].tokens)
            np.testing.assert_allclose(trial.score_C[name], wanted, rtol=1e-4)


def test_who_is_tried_later_is_tried_alike(model, rank, edited):
    whole, some = tried(rank, model, edited), tried(rank, model, edited, wanted={3})
    assert set(some) == {(2, 0), (2, 1), (3, 0), (3, 1)}  # its block
    for key, trial in some.items():
        assert trial.reasoning == whole[key].reasoning
        assert all(np.array_equal(trial.score_C[name], whole[key].score_C[name]) for name in trial.score_C)


def test_without_reasoning_there_is_none_to_change(model, rank, edited):
    (trial, *_) = tried(rank, model, edited, wanted={0}, reasoning=False).values()
    assert trial.reasoning == "" and set(trial.score_C) == {OWN, *edited[0].prompts}


def test_only_a_ranker_by_likelihood_is_tried(chat, model):
    sampling = RolloutConfig(max_tokens=24, temperature=1.0)
    for mode, samples in (("generate", 1), ("likelihood", 2)):
        rank = PolicyRanker(
            model[0], chat, sampling, make_mesh(1), mode=mode, runs=1, samples=samples, rows=4
        )
        with pytest.raises(ValueError, match="in mode likelihood with one sample"):
            Trials(rank, ConfigDict(SECTION))


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Kai gave it a 4.\nJo gave it a 4.\nKai and Lea.\n", "Kai gave it a 4.\n"),
        ("Kai gave it a 4.\nJo gave it a 4.", "Kai gave it a 4.\n"),
        ("Kai gave it a 4.\n", ""),
        ("", ""),
    ],
)
def test_half_of_a_reasoning_is_of_whole_lines(chat, text, wanted):
    assert chat.text(half(chat, chat.encode(text))) == wanted

"""A policy's modes: likelihood against a walk through whole rows, the others against each other."""

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from r2rec_jax.data.generate import generate
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.llama import Llama, head, init_variables
from r2rec_jax.pipeline.prompt_source import Prompt, RankingPrompts
from r2rec_jax.prompts.answer_parser import Ranking
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.rank import policy_ranker
from r2rec_jax.rank.policy_ranker import PolicyRanker, blocks
from r2rec_jax.rank.self_consistency import self_consistent
from r2rec_jax.rollout.completions import complete
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.rollout.engine import Engine
from r2rec_jax.rollout.slots import Rollout
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh

CONFIG = ConfigDict({"wording": "compact", "answer": "numbers", "places": 3, "reasoning": True, "likes": 2})
CONFIG.update({"chains": 1, "buckets": (160,), "chain_length": 1, "chain_selection": "uniform"})
CONFIG.update({"history": 0, "item_tokens": False})
EVERYBODY = set(range(5))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> tuple[Dataset, Chat]:
    log, catalog = generate(seed=3, users=60, items=64, ratings_per_user=14)
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [f"Kai gave {a}, {b} a 4, and Order: 12 > 3" for a in catalog.title for b in catalog.title[:9]]
    train_tokenizer(texts, 500).save(str(folder / "tokenizer.json"))
    return Dataset("small", log, catalog, split(log, seed=0, sizes={"evaluation": 5})), Chat(folder)


@pytest.fixture(scope="module")
def model(data) -> tuple[Llama, dict]:
    vocabulary = data[1].tokenizer.get_vocab_size()
    model = Llama(LlamaConfig(vocabulary, 16, 24, 1, 2, 1, 8, 1e-5, 1000.0, None, 256, False))
    variables = jax.jit(lambda: init_variables(model, 0))()
    return model, jax.tree.map(lambda leaf: 3 * leaf, variables)  # surer of itself


def section(**changes) -> ConfigDict:
    return ConfigDict(CONFIG.to_dict() | changes)


def asked(data, config) -> list[Prompt]:
    dataset, chat = data
    return list(RankingPrompts(dataset, dataset.split.users["evaluation"], chat, config, 0))


def ranked(data, model, mode, config=CONFIG, *, runs=1, samples=1, wanted=EVERYBODY, rows=5, **how) -> dict:
    sampling = RolloutConfig(**{"max_tokens": 32, "chunk": 8, "temperature": 1.0} | how)
    counts = {"runs": runs, "samples": samples, "rows": rows}
    rank = PolicyRanker(model[0], data[1], sampling, make_mesh(1), mode=mode, **counts)
    triples = list(rank(model[1], asked(data, config), config, seed=5, wanted=wanted))
    found = {(k, run): judged for k, run, judged in triples}
    assert len(found) == len(triples)
    return found


def reasonings(data, model, prompts, rows) -> list[list[list[int]]]:
    """What the mode that generates says for each prompt, up to the end of its reasoning or of all."""
    chat = data[1]
    engine = Engine(model[0], chat.end, RolloutConfig(max_tokens=60, temperature=1.0))
    ended = complete(engine, model[1], prompts, CONFIG.buckets, samples=rows, seed=5)
    said = Rollout.of_groups(ended).tokens.tolist()
    ends = [
        min(row.index(token) if token in row else 60 for token in (chat.end, chat.end_think)) for row in said
    ]
    cut = [row[:end] for row, end in zip(said, ends, strict=True)]
    assert 0 < sum(chat.end_think in row for row in said) < len(said)  # some close it, some do not
    return [cut[k : k + rows] for k in range(0, len(cut), rows)]


@pytest.mark.parametrize("answer", ["numbers", "titles"])
@pytest.mark.parametrize("reasoning", [True, False])
def test_likelihood_is_of_naming_a_candidate_first(answer, reasoning, data, model):
    """Each candidate's whole row through the forward pass: prompt, reasoning, opening, name, its end."""
    config, chat, runs = section(answer=answer, reasoning=reasoning), data[1], 3 if reasoning else 1
    found = ranked(data, model, "likelihood", config, max_tokens=60, runs=runs, rows=5 * runs)
    assert sorted(found) == [(k, run) for k in range(5) for run in range(runs)]
    prompts = asked(data, config)
    thoughts = reasonings(data, model, prompts, runs) if reasoning else [[[]]] * 5
    close = [chat.end_think] if reasoning else []

    @jax.jit
    def logprobs(rows_CT):
        return jax.nn.log_softmax(model[0].apply(model[1], rows_CT)[0] @ head(model[1]["params"]))

    for (k, run), judged in found.items():
        prompt, said = prompts[k], thoughts[k][run]
        before = [*prompt.tokens, *said, *close, *chat.encode("\n\nOrder:")]
        names = prompt.titles if answer == "titles" else range(1, 21)
        ends = [chat.encode(f" {name}") + chat.encode(" >") for name in names]
        rows = np.zeros((20, 256), np.int32)
        for row, end in zip(rows, ends, strict=True):
            row[: len(before) + len(end)] = [*before, *end]
        every = np.asarray(logprobs(rows))
        score = [every[c, len(before) - 1 + np.arange(len(end)), end].sum() for c, end in enumerate(ends)]
        assert judged.ranking == Ranking(np.argsort(-np.array(score), kind="stable").tolist(), True)
        truth = prompt.record.candidates.tolist().index(prompt.record.truth)
        assert judged.ranking.places[judged.truth_rank - 1] == truth
        assert judged.reasoning == chat.decode(said)
        assert judged.truncated == (len(said) == 60)
        best = judged.ranking.places[0]
        assert judged.answer.startswith(f"Order: {names[best]} > ") and judged.answer.count(">") == 2


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["generate", "constrained", "likelihood"])
def test_runs_and_samples_are_the_same_completions(mode, data, model):
    """Six runs, or two of three fused: the draws are one sequence; and no run is another's copy."""
    six = ranked(data, model, mode, runs=6, rows=30)
    assert len({six[0, run].reasoning for run in range(6)}) == 6
    fused = ranked(data, model, mode, runs=2, samples=3, rows=30)
    places = 20 if mode == "likelihood" else 3
    for k in range(5):
        for run in (0, 1):
            wanted = self_consistent([six[k, 3 * run + g] for g in range(3)], places)
            assert (fused[k, run].ranking, fused[k, run].reasoning) == (wanted.ranking, wanted.reasoning)
            assert mode == "generate" or fused[k, run].ranking.valid


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["generate", "likelihood"])
def test_users_ranked_later_are_ranked_alike(mode, data, model, monkeypatch):
    monkeypatch.setattr(policy_ranker, "FILLS", 2)
    whole = ranked(data, model, mode, rows=1)
    some = ranked(data, model, mode, rows=1, wanted={3})
    assert {k for k, _ in some} == {2, 3}  # its block
    assert all(some[key].ranking == whole[key].ranking for key in some)
    assert all(some[key].reasoning == whole[key].reasoning for key in some)
    assert ranked(data, model, mode, rows=1, wanted=set()) == {}


def test_blocks_hold_one_bucket_each_and_everybody_once():
    lengths = [3, 9, 4, 5, 12, 1, 10, 2]
    prompts = [Prompt(None, "", np.zeros(n, np.int32), []) for n in lengths]
    assert blocks(prompts, (12, 5), 3) == [[0, 2, 3], [5, 7], [1, 4, 6]]
    assert blocks([], (5,), 3) == []


@pytest.mark.parametrize(("mode", "reasoning"), [("generate", True), ("likelihood", False)])
def test_a_model_that_gives_no_numbers_is_named(mode, reasoning, data, model):
    broken = model[0], jax.tree.map(lambda leaf: leaf * np.nan, model[1])
    with pytest.raises(UserError, match=r"user \d+: .* are not numbers"):
        ranked(data, broken, mode, section(reasoning=reasoning))


def test_settings_that_cannot_rank_are_refused(data, model):
    with pytest.raises(UserError, match="'guess' of a system is unknown: use one of generate, constrained"):
        ranked(data, model, "guess")
    for name, wrong in (("samples", 0), ("runs", 0), ("rows", 0)):
        with pytest.raises(UserError, match="use 1 or more"):
            ranked(data, model, "generate", **{name: wrong})

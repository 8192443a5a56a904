"""Constrained answers: always valid, distributed as the model's own numbers say, and cut from the loss."""

import itertools

import jax
import numpy as np
import pytest
import scipy.special
import scipy.stats
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r2rec_jax.data.interactions import Catalog
from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.llama import Llama, head, init_variables
from r2rec_jax.prompts.answer_parser import parse_ranking
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.prompts.wording import wording
from r2rec_jax.rollout.config import RolloutConfig
from r2rec_jax.rollout.constrain import JOINER, OPENING, rankings, spelt
from r2rec_jax.rollout.engine import Engine, Prompts
from r2rec_jax.rollout.slots import Rollout
from r2rec_jax.runtime.errors import UserError

# One title begins another, one holds the separator's space, one is a number.
TITLES = ["Alien", "Alien 3", "Alien Nation", "7", "Heat (1995)", "Big Heat"]


@pytest.fixture(scope="module")
def chat(tmp_path_factory) -> Chat:
    folder = tmp_path_factory.mktemp("tokenizer")
    texts = [f"Order: {a} > {b}.\n\nOrder: 1 > 12\n" for a in TITLES for b in TITLES]
    train_tokenizer(texts, 300).save(str(folder / "tokenizer.json"))
    return Chat(folder)


@pytest.fixture(scope="module")
def model(chat) -> tuple[Llama, dict]:
    model = Llama(
        LlamaConfig(chat.tokenizer.get_vocab_size(), 16, 24, 1, 2, 1, 8, 1e-5, 1e3, None, 256, True)
    )
    return model, jax.tree.map(lambda x: 4 * x, init_variables(model, 0))


def ask(chat, model, how, *, samples, allowed, temperature=1.0, tokens=48):
    engine = Engine(
        model[0],
        chat.end,
        RolloutConfig(max_tokens=tokens, temperature=temperature, chunk=8, constrained=True),
    )
    prompt = [*chat.prompt("Which?"), *([] if how.get("reasoning", True) else [chat.end_think])]
    B = len(allowed.budget)
    tokens_BP, ids_B = np.tile(np.array(prompt, np.int32), (B, 1)), np.arange(B, dtype=np.int32)
    prompts = Prompts(tokens_BP, np.full(B, len(prompt), np.int32), ids_B, allowed)
    return prompt, Rollout.of_groups(engine(model[1], prompts, samples=samples, seed=0))


@pytest.mark.slow
@pytest.mark.parametrize("places", [1, 3, 6])
@pytest.mark.parametrize("answer", ["titles", "numbers"])
@pytest.mark.parametrize("reasoning", [True, False])
def test_every_answer_is_a_valid_ranking(chat, model, places, answer, reasoning):
    shown = [TITLES, TITLES[::-1]]
    how = {"answer": answer, "places": places, "reasoning": reasoning}
    allowed = rankings(chat, shown, **how)
    _, rollout = ask(chat, model, how, samples=12, allowed=allowed, tokens=90)
    assert not rollout.truncated.any()
    seen = set()
    for row, tokens in enumerate(rollout.tokens.tolist()):
        said = tokens[: rollout.length[row]]
        _, text = chat.split(said if reasoning else [chat.end_think, *said])
        ranking = parse_ranking(text, shown[row // 12], answer=answer, places=places)
        assert ranking.valid, text
        seen.add(tuple(ranking.places))
    assert len(seen) > 2


def test_a_reasoning_that_never_ends_is_closed_in_time(chat, model):
    how = {"answer": "numbers", "places": 6}
    allowed = rankings(chat, [TITLES], **how)
    budget = int(allowed.budget[0])
    assert budget == len(chat.completion("", "Order: 1 > 2 > 3 > 4 > 5 > 6")) - len(chat.encode("\n"))
    _, rollout = ask(chat, model, how, samples=8, allowed=allowed, tokens=budget + 5)
    closed = (rollout.tokens == chat.end_think).argmax(axis=1)
    assert closed.max() == 5
    np.testing.assert_array_equal(rollout.forced[np.arange(8), closed], closed == 5)
    with pytest.raises(UserError, match=f"may need {budget} tokens"):
        ask(chat, model, how, samples=1, allowed=allowed, tokens=budget - 1)


def test_rankings_follow_the_models_probabilities_renormalised(chat, model):
    """Against every path through a hand-made tree of the answers, scored by full forwards."""
    titles, how = TITLES[:3], {"answer": "titles", "places": 2, "reasoning": False}
    draws, temperature = 4000, 3.0
    allowed = rankings(chat, [titles], **how)
    prompt, rollout = ask(
        chat, model, how, samples=draws, allowed=allowed, temperature=temperature, tokens=40
    )
    answers = {
        pair: [
            *(
                token
                for text in ("\n\nOrder:", f" {pair[0]}", " >", f" {pair[1]}")
                for token in chat.encode(text)
            ),
            chat.end,
        ]
        for pair in itertools.permutations(titles, 2)
    }

    def logits_after(said):
        hidden, _ = model[0].apply(model[1], np.array([prompt + said], np.int32))
        return np.asarray(hidden[0, -1] @ head(model[1]["params"]), np.float64) / temperature

    probability, forced = {}, {}
    for pair, tokens in answers.items():
        probability[pair], forced[pair] = 1.0, []
        for at, token in enumerate(tokens):
            allowed = sorted({other[at] for other in answers.values() if other[:at] == tokens[:at]})
            forced[pair].append(len(allowed) == 1)
            if len(allowed) > 1:
                p = scipy.special.softmax(logits_after(tokens[:at])[allowed])
                probability[pair] *= p[allowed.index(token)]
    assert sum(probability.values()) == pytest.approx(1)
    pairs, seen = list(answers), np.zeros(6)
    for row, tokens in enumerate(rollout.tokens.tolist()):
        said = tokens[: rollout.length[row]]
        pair = next(k for k in range(6) if answers[pairs[k]] == said)
        seen[pair] += 1
        assert rollout.forced[row, : len(said)].tolist() == forced[pairs[pair]]
    expected = np.array([probability[pair] for pair in pairs]) * draws
    assert expected.min() >= 5
    assert scipy.stats.chisquare(seen, expected).pvalue > 1e-3


AWKWARD = st.text(st.sampled_from("aA b.[]()'\"“>1:é\u0301\u200f<|think|>"), max_size=12)


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(titles=st.lists(AWKWARD, min_size=2, max_size=6), year=st.sampled_from([0, 1995]), data=st.data())
def test_every_constrained_answer_is_read_as_it_was_spelt(chat, titles, year, data):
    """Whatever the titles, equal ones included: names, tokens, text, and back."""
    count = len(titles)
    catalog = Catalog(titles, np.full(count, year, np.int32), [()] * count, [{}])
    for words in (wording("movies"), wording("compact")):
        shown = [words.title(catalog, item) for item in range(count)]
        assert len(set(shown)) == count
        order = data.draw(st.permutations(range(count)))
        names = spelt(chat, shown, "titles")
        said = [*chat.encode(OPENING), *names[order[0]]]
        for k in order[1:]:
            said += [*chat.encode(JOINER), *names[k]]
        read = parse_ranking(chat.decode(said), shown, answer="titles", places=count)
        assert read.places == list(order) and read.valid

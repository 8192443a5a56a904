"""This repository's model as a teacher: what it says is passed on as it is."""

import jax
import pytest

from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.llama import Llama, init_variables
from r2rec_jax.rollout.engine import Engine
from r2rec_jax.rollout.slots import Rollout
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.teachers.local import LocalTeacher
from r2rec_jax.teachers.request import Request
from tests.teachers.asked import questions_of


@pytest.fixture
def teacher(chat, config):
    architecture = LlamaConfig(
        chat.tokenizer.get_vocab_size(), 16, 24, 1, 2, 1, 8, 1e-5, 1000.0, None, 4200, False
    )
    model = Llama(architecture)
    variables = jax.jit(lambda: {"params": init_variables(model, 0)["params"]})()
    config.annotate.max_tokens = 8
    config.prompt.buckets = (64,)

    def teacher(hint=True):
        config.annotate.hint = hint
        return LocalTeacher(
            config.annotate, chat, model, variables, buckets=config.prompt.buckets, seed=config.seed
        )

    return teacher


@pytest.fixture
def asks(dataset, chat, config):
    config.prompt.buckets = (4096,)
    return [Request(question, question.prompt, 1) for question in questions_of(dataset, chat, config)[:5]]


def said(teacher, asks) -> dict:
    replies = {}
    teacher(asks, lambda ask, reply: replies.update({ask.question.key: reply}))
    return replies


def test_every_ask_is_answered_in_batches_that_need_not_be_full(teacher, asks, chat):
    replies = said(teacher(), asks)
    assert set(replies) == {ask.question.key for ask in asks}
    for ask in asks:
        reply = replies[ask.question.key]
        assert reply.prompt_tokens == len(chat.prompt(ask.text)) + 1  # the think block is closed
        assert reply.fault in (None, "truncated") and 0 < reply.completion_tokens <= 8


def test_a_reply_depends_on_its_question_and_attempt(teacher, asks):
    model = teacher()
    texts = {key: reply.text for key, reply in said(model, asks).items()}
    assert len(set(texts.values())) == 5
    backwards = {key: reply.text for key, reply in said(model, asks[::-1]).items()}
    assert backwards == texts
    again = [Request(ask.question, ask.text, 2) for ask in asks]
    assert {key: reply.text for key, reply in said(model, again).items()} != texts


@pytest.mark.parametrize("hint", [True, False])
def test_with_a_hint_all_is_answer_without_one_the_policy_reasons_first(
    teacher, asks, chat, hint, monkeypatch
):
    teacher = teacher(hint)
    whole = chat.completion("One hop.\nTwo hops.", "Rating: 4")
    if hint:
        whole = [*chat.encode("One hop.\nTwo hops.\nRating: 4"), chat.end]
    opened = []

    def groups(_engine, _variables, prompts, *, samples, seed):
        assert (samples, seed) == (1, teacher.seed)
        opened.extend(row[:n].tolist() for row, n in zip(prompts.tokens, prompts.length, strict=True))
        for b in range(len(prompts.tokens)):
            rollout = Rollout.empty(1, len(whole))
            rollout.tokens[:], rollout.length[:] = whole, len(whole)
            yield b, rollout

    monkeypatch.setattr(Engine, "__call__", groups)
    replies = said(teacher, asks[:2])
    assert {reply.text for reply in replies.values()} == {"One hop.\nTwo hops.\nRating: 4"}
    closed = [chat.end_think] if hint else []
    assert opened[0] == chat.prompt(asks[0].text) + closed


def test_a_trace_that_the_model_has_no_positions_for_is_refused_at_once(teacher, config):
    config.annotate.max_tokens = 4200
    with pytest.raises(
        UserError, match=r"annotate\.max_tokens=4200 are more than the model's 4200 positions"
    ):
        teacher()

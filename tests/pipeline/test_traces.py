"""Trace files as examples to learn from, and files that are none."""

import json

import numpy as np
import pytest

from r2rec_jax.pipeline.batches import collate
from r2rec_jax.pipeline.traces import Traces
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.runtime.errors import UserError

TRACE = {"user": 3, "prompt": "Rank these.", "reasoning": "One hop.\nTwo hops.", "answer": "Order: 2 > 1"}
OTHER = TRACE | {"prompt": "Rank those ▸ too.", "answer": "Order: Amélie > 8½"}


@pytest.fixture(scope="module")
def chat(tmp_path_factory) -> Chat:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer(["Rank these. One hop. Two hops."], 300).save(str(folder / "tokenizer.json"))
    return Chat(folder)


@pytest.fixture
def written(tmp_path, chat):
    """written(*lines) -> Traces of a file with these lines."""

    def written(*lines) -> Traces:
        path = tmp_path / "traces.jsonl"
        path.write_bytes(b"".join(line.encode() + b"\n" for line in lines))
        return Traces(path, chat)

    return written


def as_line(trace) -> str:
    return json.dumps(trace, ensure_ascii=False)


def test_an_example_is_the_turn_of_its_line(written, chat):
    traces = written(as_line(TRACE), as_line(OTHER))
    assert len(traces) == 2
    for example, trace in ((traces[0], TRACE), (traces[1], OTHER)):
        assert example["prompt"].tolist() == chat.prompt(trace["prompt"])
        assert example["response"].tolist() == chat.completion(trace["reasoning"], trace["answer"])
        assert chat.split(example["response"].tolist()) == (trace["reasoning"], trace["answer"])
        assert {a.dtype for a in (example["prompt"], example["response"])} == {np.dtype(np.int32)}


def test_a_trace_without_reasoning_answers_a_closed_block(written, chat):
    traces = written(as_line(TRACE | {"reasoning": ""}))
    prompt, response = (traces[0][name].tolist() for name in ("prompt", "response"))
    assert prompt == [*chat.prompt(TRACE["prompt"]), chat.end_think]
    assert chat.end_think not in response and response[-1] == chat.end
    assert chat.split([chat.end_think, *response]) == ("", TRACE["answer"])


def test_all_of_the_response_is_learnt_and_nothing_of_the_prompt(written):
    traces = written(as_line(TRACE), as_line(OTHER))
    batch = collate([traces[0], traces[1]], (64, 128), (64, 128))
    lengths = [len(traces[k]["response"]) for k in range(2)]
    assert batch.response_mask.sum(axis=1).tolist() == lengths
    for row, n in zip(batch.response_mask, lengths, strict=True):
        assert row[:n].all() and not row[n:].any()


def test_line_separators_inside_a_text_do_not_split_its_line(written):
    odd = TRACE | {"reasoning": "one\u2028two\u0085three\u000bfour"}
    assert len(written(as_line(odd), as_line(TRACE))) == 2


def test_an_absent_file_is_named_with_its_command(tmp_path, chat):
    with pytest.raises(UserError, match=r"no traces at .*absent\.jsonl.*launch\.annotate"):
        Traces(tmp_path / "absent.jsonl", chat)


@pytest.mark.parametrize(
    "line",
    ["{", "", "[]", "3", '"text"', '{"prompt": "a", "reasoning": "b"}', as_line(TRACE | {"answer": None})],
)
def test_the_first_line_that_is_no_trace_is_named(written, line):
    with pytest.raises(UserError, match=r"traces\.jsonl:2 is not a trace with prompt, reasoning, answer"):
        written(as_line(TRACE), line, "{")


@pytest.mark.parametrize("text", ["</think> so", "\ud800"])
def test_a_trace_that_holds_markup_or_no_text_is_named(written, text):
    odd = TRACE | {"reasoning": text}
    with pytest.raises(UserError, match=r"traces\.jsonl:2: text .*; annotate again"):
        written(as_line(TRACE), json.dumps(odd))


def test_text_that_is_not_utf8_is_named(tmp_path, chat):
    (tmp_path / "latin.jsonl").write_bytes(as_line(OTHER).encode("latin-1", "replace") + b"\n")
    with pytest.raises(UserError, match=r"latin\.jsonl:1 is not a trace"):
        Traces(tmp_path / "latin.jsonl", chat)


def test_an_empty_file_is_refused(written):
    with pytest.raises(UserError, match="contains no trace"):
        written()

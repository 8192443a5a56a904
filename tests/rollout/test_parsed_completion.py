"""A completion read strictly: what it names, where the truth stands, and what spoils it."""

import numpy as np
import pytest
from ml_collections import ConfigDict

from r2rec_jax.pipeline.prompt_source import Prompt
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.ranking_prompt import RankingRecord
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.rollout.parsed_completion import parse_completion

TITLES = ["Amber", "Birch", "Cedar", "Dune"]
RECORD = RankingRecord(
    7, {}, [], [], np.array([40, 10, 30, 20], np.int32), np.ones(4, int), 30
)  # the truth: Cedar, number 3
PROMPT = Prompt(RECORD, "", np.array([], np.int32), TITLES)
REASONING = "He liked the first.\nShe liked it too.\nSo it fits."


@pytest.fixture(scope="module")
def chat(tmp_path_factory) -> Chat:
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([REASONING, " > ".join(TITLES)], 300).save(str(folder / "tokenizer.json"))
    return Chat(folder)


TITLES = ConfigDict({"answer": "titles", "places": 3, "reasoning": True})


def read(chat, answer_text, *, answer="titles", places=3, truncated=False, reasoning=REASONING):
    tokens = np.array(chat.completion(reasoning, answer_text), np.int32)
    return parse_completion(
        PROMPT, tokens, truncated, chat, ConfigDict(TITLES.to_dict() | {"answer": answer, "places": places})
    )


@pytest.mark.parametrize(
    ("answer", "text", "rank", "valid"),
    [
        ("titles", "Order: Cedar > Amber > Dune", 1, True),
        ("titles", "Order: Amber > Dune > Cedar", 3, True),
        ("titles", "Order: Amber > Birch > Dune", 0, True),  # valid, and a miss
        ("titles", "Order: Elsewhere > Cedar > Dune", 2, False),  # off the list: keeps its place
        ("titles", "Order: Amber > Amber > Cedar", 2, False),  # the first mention counts
        ("titles", "Order: Amber > Birch > Dune > Cedar", 0, False),  # beyond the places asked for
        ("titles", "Order: Cedar", 1, False),
        ("titles", "Cedar is best", 0, False),
        ("numbers", "Order: 3 > 1 > 2", 1, True),
        ("numbers", "Order: 1 > 3 > 2", 2, True),
        ("numbers", "Order: 5 > 0 > 3", 3, False),
        ("numbers", "Order: Cedar > Amber > Dune", 0, False),
    ],
)
def test_the_rank_of_the_truth(chat, answer, text, rank, valid):
    judged = read(chat, text, answer=answer)
    assert (judged.lenient_rank, judged.ranking.valid) == (rank, valid)
    assert judged.truth_rank == (rank if valid else 0)
    assert (judged.reasoning, judged.answer) == (REASONING, text)


def test_only_the_reasoning_is_counted(chat):
    judged = read(chat, "Here is my list of films:\nOne more line of text.\nOrder: Cedar > Amber > Dune")
    assert judged.statements == 3 and judged.truth_rank == 1


def test_a_reasoning_cut_off_has_no_answer(chat):
    tokens = np.array(chat.encode("Order: Cedar > Amber > Dune\nIt goes on and"), np.int32)
    judged = parse_completion(PROMPT, tokens, True, chat, TITLES)
    assert judged.answer is None and judged.truncated
    assert judged.truth_rank == 0 and not judged.ranking.valid and judged.ranking.places == []


def test_an_answer_cut_off_is_read_as_far_as_it_goes(chat):
    whole = chat.completion(REASONING, "Order: Cedar > Amber > Dune")
    cut = np.array(whole[: -1 - len(chat.encode(" > Dune"))], np.int32)
    judged = parse_completion(PROMPT, cut, True, chat, TITLES)
    assert (
        judged.truncated and judged.lenient_rank == 1 and judged.truth_rank == 0 and not judged.ranking.valid
    )


def test_what_follows_the_end_is_not_read(chat):
    tokens = [*chat.completion(REASONING, "Order: Amber"), *chat.encode("Order: Cedar")]
    judged = parse_completion(
        PROMPT,
        np.array(tokens),
        False,
        chat,
        TITLES,
    )
    assert judged.truth_rank == 0


def test_an_empty_completion_is_a_miss(chat):
    judged = parse_completion(
        PROMPT,
        np.array([chat.end], np.int32),
        False,
        chat,
        TITLES,
    )
    assert (judged.truth_rank, judged.statements, judged.answer) == (0, 0, None)


def test_without_reasoning_all_that_is_said_is_the_answer(chat):
    tokens = np.array([*chat.encode("\n\nOrder: Amber > Birch > Dune"), chat.end], np.int32)
    config = ConfigDict({"answer": "titles", "places": 3, "reasoning": False})
    judged = parse_completion(PROMPT, tokens, False, chat, config)
    assert judged.reasoning == "" and judged.statements == 0 and judged.ranking.valid

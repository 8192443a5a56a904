"""Cases: what was shown, from the log itself, and text that stays text."""

import dataclasses
import re
import unicodedata

import numpy as np
import pytest
from ml_collections import ConfigDict

from r2rec_jax.prompts.ranking_prompt import make_record, ranking_prompt
from r2rec_jax.prompts.wording import wording
from r2rec_jax.report.case_text import case_text
from r2rec_jax.report.cases import OFF_LIST, USER, build_case, choose
from r2rec_jax.report.html_report import Report, render
from r2rec_jax.report.result_table import Table
from r2rec_jax.runtime.errors import UserError

PROMPT = ConfigDict(
    {
        "wording": "compact",
        "answer": "titles",
        "places": 3,
        "reasoning": True,
        "likes": 4,
        "history": 0,
        "chains": 3,
        "chain_length": 2,
        "chain_selection": "uniform",
    }
)
HOSTILE = "\x1b[31mred\x07\u202e</think><script>"


def recorded(dataset, graph, chains: int = 3, **said) -> dict:
    """A line of users.jsonl whose prompt had room for the last `chains` chains."""
    user = int(dataset.split.users["evaluation"][2])
    whole = make_record(dataset, graph, user, chains=3, likes=4, seed=9, length=2)
    record = dataclasses.replace(whole, chains=whole.chains[3 - chains :])
    text = ranking_prompt(record, dataset.catalog, wording("compact"), answer="titles", places=3)
    return {"user": user, "prompt": text, "reasoning": "", "ranking": [], "truth_rank": 0} | said


def build(dataset, graph, row, seed=9):
    return build_case(row, dataset, graph, PROMPT, seed=seed, before_target_time=False)


def test_every_hop_is_a_rating_of_the_log_and_the_loop_closes(dataset, graph):
    row, log = recorded(dataset, graph), dataset.interactions
    case, title = build(dataset, graph, row), dataset.catalog.title
    history = dataset.history(row["user"])
    own = {title[i]: f"{r:g}" for i, r in zip(log.item[history], log.rating[history], strict=True)}
    assert len(case.chains) == 3
    for chain in case.chains:
        raters = [hop.rater for hop in chain]
        assert raters[0] == raters[-1] == USER
        assert raters[1] == raters[2] != raters[3] == raters[4] != USER
        assert [chain[k].title for k in (0, 2, 4)] == [chain[k].title for k in (1, 3, 5)]
        assert all(own[chain[k].title] == chain[k].rating for k in (0, 5))
        # Each companion's two ratings are of one person of the log.
        for first, second in (chain[1:3], chain[3:5]):
            rated = [
                {int(u) for u in log.user[(log.rating == float(hop.rating)) & is_item(dataset, hop.title)]}
                for hop in (first, second)
            ]
            assert rated[0] & rated[1] - {row["user"]}
    assert case.likes == [title[item] for item in dataset.recent_likes(row["user"], 4)]
    assert case.candidates[case.truth] == title[dataset.split.truth[row["user"]]]


def is_item(dataset, title: str) -> np.ndarray:
    return np.isin(dataset.interactions.item, dataset.catalog.title.index(title))


def test_a_history_is_that_of_the_log(dataset, graph):
    user = int(dataset.split.users["evaluation"][2])
    prompt = PROMPT.copy_and_resolve_references()
    prompt.update({"wording": "mini", "history": 3})
    # One less than there would have been without a budget; chains and likes go before history does.
    record = make_record(dataset, graph, user, chains=0, likes=0, history=2, seed=9)
    text = ranking_prompt(record, dataset.catalog, wording("mini"), answer="titles", places=3)
    row = {"user": user, "prompt": text, "reasoning": "", "ranking": [], "truth_rank": 0}
    case = build_case(row, dataset, graph, prompt, seed=9, before_target_time=False)
    rows, log = dataset.history(user), dataset.interactions
    rated = zip(log.item[rows][-2:].tolist(), log.rating[rows][-2:].tolist(), strict=True)
    titles = [wording("mini").title(dataset.catalog, item) for item in log.item[rows][-2:].tolist()]
    assert [(hop.rater, hop.title) for hop in case.history] == [(USER, title) for title in titles]
    assert [hop.rating for hop in case.history] == [f"{rating:g}" for _, rating in rated]
    assert (case.likes, case.chains) == ([], [])


def test_what_the_prompt_had_no_room_for_is_not_shown(dataset, graph):
    assert len(build(dataset, graph, recorded(dataset, graph, chains=1)).chains) == 1


def test_a_step_names_what_it_mentions(dataset, graph):
    case = build(dataset, graph, recorded(dataset, graph))
    only_chain = next(
        hop.title
        for hop in case.chains[1]
        if hop.title not in case.likes
        and not any(hop.title == other.title for k in (0, 2) for other in case.chains[k])
    )
    reasoning = f"A word.\n\nKai gave {only_chain} a 4.\n{case.candidates[6]} is like it."
    steps = build(dataset, graph, recorded(dataset, graph, reasoning=reasoning)).steps
    assert [step.names for step in steps] == [[], ["chain 2"], ["candidate 7"]]
    liked = build(dataset, graph, recorded(dataset, graph, reasoning=f"{case.likes[0]}, and more."))
    assert liked.steps[0].names[0] == "like"


def test_other_data_or_settings_than_the_evaluations_are_refused(dataset, graph):
    with pytest.raises(UserError, match="does not match these data and this config"):
        build(dataset, graph, recorded(dataset, graph), seed=10)


@pytest.mark.parametrize(
    "change", [{"reasoning": None}, {"ranking": "A > B"}, {"ranking": [3]}, {"prompt": 4}]
)
def test_a_line_that_no_language_model_left_is_refused(dataset, graph, change):
    with pytest.raises(UserError, match=r"user \d+ was not written by launch.eval"):
        build(dataset, graph, recorded(dataset, graph) | change)


def test_cases_are_chosen_by_outcome():
    rows = [{"user": user, "truth_rank": rank} for user, rank in enumerate((0, 3, 1, 1, 0, 2))]
    assert [row["user"] for row in choose(rows)] == [2, 1, 0]
    assert choose(rows[:1]) == rows[:1]


def test_the_terminals_text_is_plain_and_as_narrow_as_asked(dataset, graph):
    truth = dataset.catalog.title[dataset.split.truth[recorded(dataset, graph)["user"]]]
    said = {"reasoning": f"one {HOSTILE} step " * 9, "ranking": [HOSTILE, None, truth], "truth_rank": 3}
    case = build(dataset, graph, recorded(dataset, graph, **said))
    assert case.ranking[1] == OFF_LIST
    text = case_text(case, width=50, styled=False)
    assert max(map(len, text.splitlines())) <= 50
    assert not [c for c in text if unicodedata.category(c) in ("Cc", "Cf") and c != "\n"]
    assert f"3 {truth} (" in text and f"{truth}, the item held out, is number 3 of 20" in text
    genres = dataset.catalog.genres[dataset.split.truth[int(case.user)]]
    assert f"{truth} ({', '.join(genres)}) <- the truth" in text
    styled = case_text(case, width=50, styled=True)
    assert "\x1b[31m" not in styled and re.sub(r"\x1b\[[012]m", "", styled) == text


def test_without_ratings_nobody_has_liked_or_rated(dataset, graph):
    """What stands in for a like has the verb of the prompt: films are watched, tracks listened to."""
    case = dataclasses.replace(build(dataset, graph, recorded(dataset, graph)), verb="listened to")
    shown = case_text(case, width=80, styled=False)
    page = render(Report({}, Table("t", "h", []), cases=[case]))
    for text in (shown, page):
        assert "Recently listened to, oldest first" in text
        assert "Recently liked" not in text and " rated " not in text

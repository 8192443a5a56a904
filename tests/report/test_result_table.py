"""Tables over seeds: the numbers against sums by hand, the text against what a reader needs."""

import dataclasses
import json
import math

import numpy as np
import pytest

from r2rec_jax.report.paper_numbers import DATASETS, dataset_name, published, published_transfer
from r2rec_jax.report.result_table import (
    GROUPS,
    Row,
    SeedResult,
    Table,
    as_json,
    lead_of,
    measured_row,
    person_ci,
)
from r2rec_jax.report.result_text import decimal, duration, lead_text, markdown
from r2rec_jax.report.result_text import text as aligned
from r2rec_jax.report.system_names import SYSTEMS, TABLES, about


def row_of_two_seeds() -> Row:
    first = SeedResult(0, np.array([3, 5, 8]), np.array([[1, 2, 0], [1, 4, 3]]), wall_s=100.0, valid_rate=0.5)
    second = SeedResult(7, np.array([5, 6, 9]), np.array([[1, 0, 2]]), wall_s=50.0, valid_rate=1.0)
    return measured_row("r2rec", "R2Rec", "ours", [first, second], paper=published("R2Rec", "ml-1m"))


def test_the_mean_is_over_every_user_of_every_seed():
    row = row_of_two_seeds()
    # Users 3, 5, 8 (means of two runs), then 5, 6, 9.
    assert row.measured["hr@1"] == pytest.approx((1 + 0 + 0 + 1 + 0 + 0) / 6)
    assert row.measured["hr@3"] == pytest.approx((1 + 0.5 + 0.5 + 1 + 0 + 1) / 6)
    gains = 1 + 0.5 / math.log2(3) + 0.5 / math.log2(4) + 1 + 0 + 1 / math.log2(3)
    assert row.measured["ndcg@3"] == pytest.approx(gains / 6)
    assert row.hr_1_by_seed == pytest.approx((1 / 3, 1 / 3))
    assert (row.seeds, row.users, row.runs, row.wall_s, row.valid_rate) == ((0, 7), 6, 2, 75.0, 0.75)


def test_an_interval_draws_persons_with_all_their_seeds():
    """Against the normal interval of a mean of clusters, which one of single values would miss by half."""
    rng = np.random.default_rng(3)
    of_person = rng.random(400) < 0.3
    values, persons = np.repeat(of_person, 4).astype(float), np.repeat(np.arange(400), 4)
    low, high = person_ci(values, persons)
    half = 1.96 * of_person.std() / math.sqrt(400)
    assert low == pytest.approx(of_person.mean() - half, abs=0.01)
    assert high == pytest.approx(of_person.mean() + half, abs=0.01)


def test_markdown_and_json_say_the_same():
    absent = measured_row(
        "a", "A|b", "llm", [], missing="needs OPENAI_API_KEY", paper=published("ChatRec", "ml-1m")
    )
    misprinted = published("GRU4Rec", "amazon-2023 Books")
    table = Table("On [x](y)", "abc123", [row_of_two_seeds(), absent, Row("c", "C", "classical", misprinted)])
    text = markdown(table)
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {lines[0].count("|")}
    ours = next(line for line in lines if line.startswith("| R2Rec"))
    assert "| .333 (" in ours and "| .404 |" in ours and "| 0 7 | 6 | 1 min 15 s |" in ours
    assert "| A\\|b | needs OPENAI\\_API\\_KEY | .230 |" in text and ".527† |" in text
    assert text.startswith("# On \\[x\\](y)\n") and "abc123" in text
    # A group after another, whatever the order of the rows.
    assert text.index("**Without a language model**") < text.index("| A\\|b") < text.index("| R2Rec |")

    note = "fetch `it` from https://example.org/a_b"
    noted = dataclasses.replace(table, note=note)
    assert markdown(noted) == f"{text}\n    {note}\n"
    plain = aligned(noted).splitlines()
    assert plain[-1] == note and len(plain) == 6
    (low, high) = (f"{end:.3f}".removeprefix("0") for end in row_of_two_seeds().ci95["hr@1"])
    assert plain[3].split() == ["R2Rec", ".333", f"{low}-{high}", ".404", ".667", ".533"]
    assert plain[2].split(maxsplit=2) == ["A|b", ".230", "needs OPENAI_API_KEY"]
    # Under the paper's heading, whether or not there is a number of ours.
    assert plain[0].index("paper") == plain[3].index(".404") == plain[2].index(".230")

    said = json.loads(json.dumps(as_json(table), allow_nan=False))
    ours, none, _ = said["rows"]
    assert (
        ours["hr@1"] == pytest.approx(1 / 3) and ours["ci95"]["hr@1"][0] <= 1 / 3 <= ours["ci95"]["hr@1"][1]
    )
    assert ours["paper"] == {"hr@1": 0.404, "hr@3": 0.544, "ndcg@3": 0.484, "misprint": False}
    assert (none["hr@1"], none["ci95"], none["missing"]) == (None, {}, "needs OPENAI_API_KEY")


def test_the_lead_is_paired_over_the_seeds_that_both_have():
    rng = np.random.default_rng(0)
    users = np.arange(300)
    base = rng.integers(1, 5, size=300)
    better = np.where(rng.random(300) < 0.2, 1, base)
    policy = [SeedResult(0, users, better[None], 1.0), SeedResult(2, users, base[None], 1.0)]
    other = [SeedResult(0, users, base[None], 1.0), SeedResult(1, users, better[None], 1.0)]
    difference = (better == 1) * 1.0 - (base == 1)
    mean, low, high = lead_of(policy, other)
    assert mean == pytest.approx(difference.mean()) and low < mean < high
    half = 1.96 * difference.std() / math.sqrt(300)
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.006)
    assert lead_of(policy[1:], other) is None
    row = Row("a", "A", "llm", lead=(-0.0644, -0.1, 1.0))
    assert lead_text(row) == "-.064 (-.100 to +1.000)"


def test_numbers_as_tables_print_them():
    assert [decimal(x) for x in (0.4036, 0, 1)] == [".404", ".000", "1.000"]
    assert [duration(s) for s in (8.4, 192, 7500)] == ["8 s", "3 min 12 s", "2 h 05 min"]


def test_every_method_of_the_paper_answers_a_system():
    methods = [system.method for system in SYSTEMS.values() if system.method]
    assert len(set(methods)) == len(methods) == 17
    assert all(published(method, dataset) for method in methods for dataset in DATASETS)
    assert {system.group for system in SYSTEMS.values()} == set(GROUPS)
    assert len(TABLES["table2"]) == 6 and set(TABLES["table1"]) | set(TABLES["table2"]) == set(SYSTEMS)
    assert published("R2Rec", "generated") is None and published("EASE^R", "ml-1m") is None


def test_the_papers_numbers_and_their_misprints():
    assert dataset_name("amazon-2023", "Books") == "amazon-2023 Books"
    assert dataset_name("ml-1m", "Books") == "ml-1m"
    assert published("R2Rec", "ml-1m").metrics() == {"hr@1": 0.404, "hr@3": 0.544, "ndcg@3": 0.484}
    transfers = [published_transfer(a, b) for a in DATASETS for b in DATASETS if a != b]
    assert sum(cell.hr_1 for cell in transfers) == pytest.approx(0.502 + 0.302 + 0.302 + 0.43 + 0.238 + 0.484)
    assert published_transfer("ml-1m", "amazon-2023 Electronics").hr_1 == 0.302
    assert published_transfer("ml-1m", "ml-1m") is None and published_transfer("generated", "ml-1m") is None
    cells = [published(system.method, d) for system in SYSTEMS.values() if system.method for d in DATASETS]
    assert sum(cell.misprint for cell in cells) == 13  # counted by hand in its tables
    # .502 + .5 x .114 = .559 at least, where .540 is printed.
    assert [cell.hr_1 for cell in transfers if cell.misprint] == [0.502]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("sasrec", "SASRec, full softmax"),
        ("prompt only, no reasoning chain", "Prompt only, no reasoning chain"),
        ("r2rec without rl, two chains", "R2Rec without RL, two chains"),
        ("r2rec, answers constrained, twice", "R2Rec, answers constrained, twice"),
        ("r2rec trained on books", "R2Rec trained on books"),
        ("mine", "mine"),
    ],
)
def test_a_system_is_called_after_the_one_it_varies(name, label):
    assert about(name).label == label

import dataclasses
import math
import re
from html.parser import HTMLParser

import pytest

from r2rec_jax.report.cases import Case, Hop, Step
from r2rec_jax.report.figures import interval_figure, line_figure
from r2rec_jax.report.html_report import Curve, Groups, Report, render
from r2rec_jax.report.paper_numbers import Published
from r2rec_jax.report.result_table import GROUPS, Row, Table

HOSTILE = "<script>alert('x')</script><img src=http://example.org/a.png onerror=go()>\"'&{{ 7*7 }}$\\x$"


class Page(HTMLParser):
    """Tags with attributes, and the text between them."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(html)
        self.text = " ".join(self.words)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.words.append(data)


def report(text: str = "plain") -> Report:
    case = Case(
        user=41,
        demographics={f"key {text}": f"value {text}"},
        likes=[f"like {text}"],
        chains=[[Hop(f"rater {text}", f"hop {text}", "4"), Hop("she", "it", "2.5")]],
        candidates=["first", f"second {text}", "third"],
        truth=1,
        steps=[Step(f"step {text}", ["chain 1", "candidate 2"])],
        ranking=["third", f"second {text}"],
        hit_rank=2,
        genres={f"like {text}": f"genre {text}", "third": "western"},
    )
    ci95 = {"hr@1": (0.123, 0.187), "hr@3": (0.234, 0.298), "ndcg@3": (0.211, 0.259)}
    measured = {"hr@1": 0.151, "hr@3": 0.262, "ndcg@3": 0.213}
    baseline = {"hr@1": 0.1414, "hr@3": 0.5, "ndcg@3": 0.333}
    seeds = {"seeds": (0, 3), "users": 1600, "runs": 3, "wall_s": 192.0}
    rows = [
        Row("ease", f"baseline {text}", "classical", Published(0.313, 0.491, 0.461), measured=baseline),
        Row("o4", f"absent {text}", "llm", Published(0.24, 0.374, 0.317), missing=f"needs {text}"),
        Row("r2rec", f"policy {text}", "ours", None, measured, ci95, valid_rate=0.987, **seeds),
    ]
    quarters = [
        {"from": 6, "to": 9, "users": 17, "hr@1": 0.2, "ci95": [0.1, 0.3]},
        {"from": 10, "to": 10, "users": 23, "hr@1": 0.0, "ci95": [0.0, 0.0]},
    ]
    return Report(
        facts={f"fact {text}": f"seed {text}"},
        table=Table(f"title {text}", f"hash {text}", rows),
        curves=[
            Curve(f"curve {text}", f"x {text}", f"y {text}", {f"line {text}": [(0, 1), (9, 1.75)]}),
            Curve("places", "place", "HR@1", {f"place {text}": [(1, 0.5), (2, math.nan)]}, level=0.05),
        ],
        groups=[Groups(f"groups {text}", f"count {text}", {f"dots {text}": quarters}, f"note {text}")],
        cases=[case, dataclasses.replace(case, ranking=[], hit_rank=0, steps=[], chains=[])],
        detail=f"detail {text}",
    )


def test_every_number_and_word_is_shown():
    text = Page(render(report())).text
    numbers = ".141 .500 .333 .151 .123 .187 .298 .987 .240 .374 .317 .313 .491 .461 1.750"
    chance, runs = ".050, HR@3 .150, NDCG@3 .107", "2 seeds, 1,600 users x 3, 3 min 12 s each"
    for number in [*numbers.split(), chance, runs, "6–9", "17, 23"]:
        assert number in text
    words = "title fact seed baseline absent needs policy hash curve line place groups dots note detail "
    words += "like key value rater hop step second genre"
    for word in words.split():
        assert f"{word} plain" in text
    for word in ["User 41", "2nd of 3", "chain 1", "candidate 2", "2.5"]:
        assert word in text
    assert text.count("†") == 2  # the baseline's NDCG@3, and what the mark means
    assert text.count("western") == 3  # in the ranking of one case, among the candidates of both
    assert "not in the answer" in text and "No ranking could be parsed" in text
    for section in GROUPS.values():
        assert text.count(section) == 1


def test_nothing_is_fetched():
    html = render(report())
    page = Page(html)
    assert not re.search(r"https?://|@import|url\((?!#)", html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "object", "base"}
    for _, attributes in page.tags:
        assert "src" not in attributes
        assert attributes.get("href", attributes.get("xlink:href", "#")).startswith("#")
    policy = [a["content"] for _, a in page.tags if "content-security" in str(a).lower()]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]


def test_hostile_text_is_inert():
    plain, hostile = Page(render(report())), Page(render(report(HOSTILE)))
    # The same elements and attributes: the text went nowhere but into text.
    assert [(tag, sorted(a)) for tag, a in hostile.tags] == [(tag, sorted(a)) for tag, a in plain.tags]
    assert hostile.text.count(HOSTILE) >= 24


def test_equal_reports_give_equal_pages():
    assert render(report()) == render(report())


def test_only_results():
    rows = [Row("popularity", "popularity", "classical", measured={"hr@1": 0.3, "hr@3": 0.5, "ndcg@3": 0.4})]
    text = Page(render(Report({}, Table("small", "", rows), candidates=10))).text
    assert ".300" in text and ".100" in text
    assert "Curves" not in text and "Cases" not in text and "The diamond" not in text and "†" not in text


def test_headline_is_the_finished_policy_not_our_best_row():
    base = report()
    *others, policy = base.table.rows
    early = dataclasses.replace(
        policy, system="r2rec without rl", name="early", measured=policy.measured | {"hr@1": 0.2}
    )
    table = dataclasses.replace(base.table, rows=[*others, early, policy])
    text = Page(render(dataclasses.replace(base, table=table))).text
    assert re.search(r"policy plain ranks the held-out item first for\s+15\.1\s*%", text)
    table = dataclasses.replace(table, rows=[*others, Row("r2rec", "R2Rec", "ours", missing="needs weights")])
    text = Page(render(dataclasses.replace(base, table=table))).text
    assert re.search(
        r"R2Rec has no result here: needs weights\.\s+The best.*baseline plain.*14\.1", text, re.S
    )


@pytest.mark.parametrize("group", ["classical", "llm", "ours"])
@pytest.mark.parametrize("place", [0, 3])
def test_headline_is_ours_wherever_another_system_stands(group, place):
    base = report()
    rows = list(base.table.rows)
    rows.insert(place, Row("newest", "newest", group, measured={"hr@1": 0.059, "hr@3": 0.1, "ndcg@3": 0.1}))
    text = Page(render(dataclasses.replace(base, table=dataclasses.replace(base.table, rows=rows)))).text
    assert re.search(r"policy plain ranks the held-out item first for\s+15\.1\s*%", text)


@pytest.mark.parametrize("points", [[], [(0, math.nan)], [(0, math.inf), (1, 2)]])
def test_a_figure_of_little_data(points):
    assert line_figure([points]).startswith("<svg viewBox=")


def test_an_interval_is_drawn_where_its_numbers_are():
    """By the heights that matplotlib wrote: the axis starts at 0, the level and the means scale with it."""
    svg = str(interval_figure(["1", "2–3"], [[(0.2, 0.1, 0.4), (0.1, 0.1, 0.1)]], level=0.2))
    bars = re.search(r'<g id="LineCollection_1">(.*?)</g>', svg, re.S)[1]
    paths = re.findall(r'd="M ([\d.]+) ([\d.]+) \s*L ([\d.]+) ([\d.]+)', bars)
    (x, low, _, high), (other, *flat) = (tuple(map(float, path)) for path in paths)
    markers = [float(y) for y in re.findall(r'<use [^>]*y="([\d.]+)" style="fill: var\(--series-0\)', svg)]
    assert x < other and flat[0] == flat[2]
    # From .1 to .4: the mean .2 a third of the way up.
    assert min(abs(y - (low + (high - low) / 3)) for y in markers) < 0.01
    assert min(abs(y - flat[0]) for y in markers) < 0.01

"""Hostile text in a report, in a real browser: nothing of it runs, by two walls that each hold alone."""

import re

import pytest

from r2rec_jax.report.html_report import render
from tests.report.browser import dump_dom
from tests.report.test_html_report import report

RAN = "a-script-ran"
SCRIPTS = (
    f"<script>document.title='{RAN}'</script>"
    f"<img src=x onerror=\"document.title='{RAN}'\">"
    f"</title></style></textarea><svg onload=\"document.title='{RAN}'\">"
    f"'\" onmouseover=\"document.title='{RAN}'\" autofocus onfocus=\"document.title='{RAN}'\""
    f"<iframe srcdoc=\"<script>parent.document.title='{RAN}'</script>\"></iframe>"
    f"<a href=\"javascript:document.title='{RAN}'\">x</a>"
)
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')


def title_of(dom: str) -> str:
    return re.search(r"<title>(.*?)</title>", dom, re.DOTALL)[1]


def tags(dom: str) -> list[str]:
    return re.findall(r"<([a-z]+)", dom)


def test_no_script_runs_with_or_without_the_pages_policy(tmp_path):
    plain = dump_dom(render(report()), tmp_path)
    page = render(report(SCRIPTS))
    bare, held = POLICY.subn("", page)
    assert held == 1
    for html in (page, bare):
        dom = dump_dom(html, tmp_path)
        assert title_of(dom).startswith("title &lt;script&gt;")
        # The browser made the same elements of it: the text is text.
        assert [tag for tag in tags(dom) if tag != "meta"] == [tag for tag in tags(plain) if tag != "meta"]


@pytest.mark.parametrize("policy", [True, False])
def test_text_that_were_markup_would_run_but_for_the_policy(tmp_path, policy):
    """What makes the test above one that can fail: this browser runs these scripts where it may."""
    page = render(report())
    page = page.replace("<h1>", f"<h1>{SCRIPTS}", 1)
    dom = dump_dom(page if policy else POLICY.sub("", page), tmp_path)
    assert (title_of(dom) == RAN) == (not policy)

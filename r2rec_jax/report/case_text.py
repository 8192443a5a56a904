"""Formats a case as text for a terminal."""

import textwrap

from r2rec_jax.report.cases import Case

_BOLD, _QUIET, _RESET = "\x1b[1m", "\x1b[2m", "\x1b[0m"


def case_text(case: Case, *, width: int, styled: bool) -> str:
    """The case in lines of at most `width` characters (a longer word is broken).

    styled: ANSI codes make headings and the held-out item bold.
    """

    def style(text: str, code: str) -> str:
        return f"{code}{text}{_RESET}" if styled else text

    def item(text: str, mark: str = "", bold: bool = False) -> list[str]:
        body = width - len(mark) - 2
        lines = textwrap.wrap(text, max(body, 10), break_on_hyphens=False) or [""]
        heads = [f"  {mark}", *[" " * (len(mark) + 2)] * (len(lines) - 1)]
        return [
            head + (style(line, _BOLD) if bold else line) for head, line in zip(heads, lines, strict=True)
        ]

    def with_genres(title: str) -> str:
        genres = case.genres.get(title)
        return f"{title} ({genres})" if genres else title

    def section(name: str, lines: list[str]) -> list[str]:
        return ["", style(name, _BOLD), *(lines or ["  none"])]

    about = ", ".join(f"{name} {value}" for name, value in case.demographics.items())
    out = textwrap.wrap(f"User {case.user}" + (f": {about}" if about else ""), width)
    out += section(
        f"Recently {case.liked}, oldest first",
        [line for title in case.likes for line in item(with_genres(title))],
    )
    if case.history:
        rated = "; ".join(f"{hop.title} {hop.rating}".strip() for hop in case.history)
        out += section(f"Recently {case.verb}, oldest first", item(rated))
    chains = []
    for k, chain in enumerate(case.chains, 1):
        chains += [style(f"  chain {k}", _QUIET)]
        for hop in chain:
            chains += item(f"{hop.rater} {case.verb} {with_genres(hop.title)} {hop.rating}".strip(), "  ")
    out += section("Interaction chains", chains)
    candidates = []
    for k, title in enumerate(case.candidates):
        true = k == case.truth
        candidates += item(with_genres(title) + (" <- the truth" if true else ""), f"{k + 1:>2} ", bold=true)
    out += section("Candidates, in the order shown", candidates)
    steps = []
    for k, step in enumerate(case.steps, 1):
        steps += item(step.text + (f" [{', '.join(step.names)}]" if step.names else ""), f"{k}. ")
    out += section("Reasoning, and what each step names", steps)
    ranking = []
    for k, title in enumerate(case.ranking, 1):
        true = k == case.hit_rank
        ranking += item(with_genres(title) + (" <- the truth" if true else ""), f"{k:>2} ", bold=true)
    out += section("Ranking", ranking or ["  none could be read from the answer"])
    out += ["", *textwrap.wrap(verdict(case), width)]
    return "\n".join(out)


def verdict(case: Case) -> str:
    """One sentence with the rank of the held-out item."""
    truth = case.candidates[case.truth]
    if case.hit_rank:
        return f"{truth}, the item held out, is number {case.hit_rank} of {len(case.candidates)} candidates."
    if not case.valid:
        return f"The answer breaks the form asked for: a miss. {truth} is the item held out."
    return f"{truth}, the item held out, is not in the answer."

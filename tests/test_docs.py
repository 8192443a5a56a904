"""The pages: links, paths, commands, fields, make targets and metrics exist, and entry pages stay short."""

import ast
import functools
import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest

from docs.figures.make_figures import FIGURES, FOLDER, rows_of, tables
from r2rec_jax.cli.overrides import flatten, read_config
from r2rec_jax.train.rewards import reward
from tests.cli.test_overrides import FILES, parsed
from tests.test_imports import ROOMS

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
LONGEST = {"README.md": 150, "BUILD.md": 200}
FENCE = re.compile(r"^ *```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`]+)`")  # may go on in the next line
# Paths of the repository, as opposed to those that commands write.
OURS = re.compile(
    r"(?<![\w/.~-])(?:(?:r2rec_jax|tests|configs|launch|docs|models/tiny-llama|\.ci)/[\w./-]*"
    r"|requirements[\w-]*\.txt)"
)


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The text without fenced blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """What stands in single backticks, line breaks as blanks."""
    return [" ".join(span.split()) for span in SPAN.findall(prose(page))]


def shown(page: Path) -> list[str]:
    """Lines of shell: those of fenced blocks, with continuations joined, and spans."""
    text = page.read_text(encoding="utf-8")
    blocks = [block for language, block in FENCE.findall(text) if language in ("sh", "yaml", "text")]
    return [line.strip() for block in blocks for line in block.replace("\\\n", " ").splitlines()] + spans(
        page
    )


@functools.cache
def anchors(page: Path) -> set[str]:
    """Those that GitHub gives the headings of a page."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@functools.cache
def fields() -> set[str]:
    """Every field of every config, and every section, by dotted name."""
    found = {name for file in FILES for name in flatten(read_config(file))}
    return found | {name[:k] for name in found for k, letter in enumerate(name) if letter == "."}


def commands() -> list[tuple[str, str]]:
    """(page, command) of every `python -m launch.NAME` that a page shows."""
    found = {}
    for page in PAGES:
        for line in shown(page):
            for start in re.finditer(r"python -m launch\.[a-z]\w*.*", line):
                command = (
                    re.split(r" +#| 2?>| \| | &$|\"", start[0])[0]
                    if "config.systems" not in line
                    else start[0]
                )
                found[name_of(page), command.strip()] = None
    return list(found)


def test_the_pages_are_found():
    assert {"README.md", "BUILD.md", "docs/guide.md"} <= set(map(name_of, PAGES))
    assert len(commands()) > 30 and len(FILES) > 30


@pytest.mark.parametrize("page", LONGEST)
def test_entry_pages_are_short(page):
    assert len((ROOT / page).read_text(encoding="utf-8").splitlines()) <= LONGEST[page]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_of_the_repository_exist(page):
    for span in spans(page):
        for path in OURS.findall(span) if " " in span else OURS.findall(span)[:1]:
            assert (ROOT / path).exists(), span


@pytest.mark.parametrize(("page", "command"), commands())
def test_commands_can_be_run_as_shown(page, command):  # noqa: ARG001 - in the test's name
    """The command is there, has the flags, and takes the config with its preset and fields."""
    name, *arguments = shlex.split(command.removeprefix("python -m launch."))
    source = (ROOT / "launch" / f"{name}.py").read_text(encoding="utf-8")
    cli = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "r2rec_jax" / "cli").glob("*.py"))
    defined = set(re.findall(r"DEFINE_\w+\(\s*\"(\w+)\"", source + cli)) | {"help"}
    flags = [argument.lstrip("-").partition("=") for argument in arguments if argument.startswith("--")]
    for flag, _, _ in flags:
        assert flag in defined or re.match(r"(no)?config\.", flag), flag
    config = next((value for flag, _, value in flags if flag == "config"), "")
    if not config or "FILE" in config:
        return
    reads = re.search(r"reads=(\([^)]*\))", source)
    given = [f"--{flag}{equals}{value}" for flag, equals, value in flags if "config." in flag]
    parsed(f"--config={ROOT / config}", *given, reads=ast.literal_eval(reads[1]) if reads else ())


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_fields_exist(page):
    """A dotted name in backticks whose first part is a section of a config."""
    sections = {name for name in fields() if "." not in name}
    for span in spans(page):
        if re.fullmatch(r"[a-z_]+(\.[a-z_\d]+)+", span) and span.partition(".")[0] in sections:
            assert span in fields() or Path(span).suffix in (".json", ".jsonl", ".py", ".md", ".yaml"), span


def test_names_in_the_code_exist():
    """Functions, classes and programs that the developers' pages name in backticks."""
    files = [
        path for name in ("r2rec_jax", "configs", "tests/golden") for path in (ROOT / name).rglob("*.py")
    ]
    words = {word for path in files for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}
    named = re.compile(r"_?[a-z]+(_[a-z]+)*|[A-Z]\w+(\.\w+)?|_[a-z]+")
    for page in (ROOT / "docs" / "developing.md", ROOT / "docs" / "performance.md"):
        found = [span for span in spans(page) if named.fullmatch(span)]
        assert len(found) > 10
        for span in found:
            assert all({name, f"_{name}"} & words for name in span.split(".")), (
                span
            )  # profiles drop a leading _


def test_the_example_of_a_reward_is_one():
    """On a completion with an answer, on one without, and through the function that sums parts."""
    page = (ROOT / "docs" / "guide.md").read_text(encoding="utf-8")
    (code,) = (block for language, block in FENCE.findall(page) if language == "python")
    named: dict = {}
    exec(code, named)
    config = read_config(f"{ROOT}/configs/grpo.py").reward
    for answer, value in (("Order: Badger", 1.0), (None, 0.0)):
        completion = SimpleNamespace(answer=answer, prompt=SimpleNamespace(record=None))
        parts, total = reward([(named["brevity"], 0.5)], completion, config)
        assert (parts, total) == ({"brevity": value}, 0.5 * value)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_make_targets_exist(page):
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(set(targets)) == len(targets)
    for line in shown(page):
        for target in re.findall(r"(?:^|[ ;])make ([a-z]+)\b", line):
            assert target in targets, line


def test_every_command_is_in_the_reference():
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    table = page.split("## Commands")[1].split("\n## ")[0]
    files = {path.stem for path in (ROOT / "launch").glob("*.py")} - {"__init__"}
    assert set(re.findall(r"^\| `launch\.(\w+)` \|", table, re.MULTILINE)) == files


def test_metrics_are_those_of_the_code():
    """Of every metric in the tables of the reference both parts stand in the code's strings."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "r2rec_jax").rglob("*.py"))
    page = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
    training = re.findall(r"`([a-z]+)/([\w@]+)`", page.split("## Training metrics")[1].split("## ")[0])
    assert len(training) > 30
    for room, quantity in training:
        assert re.search(rf"[\"'({{]{room}[/}}]|\"{room}\"", code), room
        assert re.search(rf"\b{re.sub('[0-9]+$|_s$', '', quantity)}", code), quantity
    ranking = page.split("## Evaluation metrics")[1].split("## ")[0]
    first = [row.split("|")[1] for row in re.findall(r"^\|.*\|$", ranking, re.MULTILINE)]
    for name in SPAN.findall("".join(first)):
        assert f'"{name}"' in code or re.sub(r"@\d", "@{k}", name) in code, name


def test_the_map_lists_the_rooms_in_their_order():
    page = (ROOT / "docs" / "developing.md").read_text(encoding="utf-8")
    table = page.split("## Map")[1].split("\n## ")[0]
    assert tuple(re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)) == ROOMS


def test_readme_shows_an_excerpt_of_the_results():
    full = {row["system"]: row for row in rows_of("R2Rec-mini on MovieLens-1M")}
    (table,) = (rows for rows in tables(ROOT / "README.md") if "HR@1" in rows[0])
    assert len(table) > 3
    for row in table:
        assert row.items() <= full[row["system"]].items()


def test_every_figure_is_drawn_and_shown():
    text = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    assert {path.stem for path in FOLDER.glob("*.svg")} == {draw.__name__ for draw in FIGURES}
    for path in [*FOLDER.glob("*.svg"), *(ROOT / "docs").glob("*.png")]:
        assert f"{path.name})" in text, path

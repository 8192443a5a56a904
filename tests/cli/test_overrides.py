"""--config.FIELD=VALUE: every field can be named, also those that the documentation names."""

import ast
import re

import pytest

from r2rec_jax.cli.overrides import quoted
from r2rec_jax.runtime.errors import UserError
from tests.configs.test_configs import BUILDS, FOLDER, PLAIN
from tests.configs.test_declared import parsed
from tests.launch.road import ROOT

FILES = [f"{FOLDER}/{name}.py" + (f":{preset}" if preset else "") for name, preset in BUILDS]
FILES += [f"{FOLDER}/{name}.py" for name in PLAIN]
PAGES = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *FOLDER.glob("*.py"),
    *(ROOT / "launch").glob("*.py"),
]
EVAL, COMPARED = f"{FOLDER}/eval.py:quickstart", f"{FOLDER}/eval.py:compared"
# What stands for a value where a page names none: "--config.data.candidates=N".
VALUES = {"N": "3", "...": "x", "M": "3", "S": "3", "FIELD": None, "field": None}


def mentioned() -> list[tuple[str, str]]:
    """(page, flag) of every override that a page writes out."""
    found = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        if page.suffix == ".py":
            text = ast.get_docstring(ast.parse(text)) or ""
        for flag in re.findall(r"\"(--config\.[^\"=]* [^\"=]*=[^\"]*)\"", text):  # quoted for the shell
            found.add((page.name, flag))
            text = text.replace(flag, "")
        for match in re.finditer(r"--((?:no)?config\.[\w.+]+)(=(\"[^\"]*\"|[^\s`,;)]+))?", text):
            name, value = match[1].rstrip("."), (match[3] or "").strip('"').rstrip(".")
            if name.rpartition(".")[2] in ("FIELD", "field", "a", "lr") or name.endswith((".b", "NAME")):
                continue
            for one in value.split("|") if match[2] else [None]:
                found.add((page.name, f"--{name}" + ("" if one is None else f"={VALUES.get(one, one)}")))
    return sorted(found)


@pytest.mark.parametrize(("page", "flag"), mentioned())
def test_every_field_that_a_page_names_can_be_set(page, flag):  # noqa: ARG001 - in the test's name
    """By some config of ours: which, the text around it says."""
    if "=" not in flag and not flag.startswith("--no"):  # a name alone
        flag = flag.removeprefix("--config.")
        assert any(flag in dict_of(file) for file in FILES)
        return
    errors = []
    for file in FILES:
        try:
            needed = ["--config.reward.extra=a:b"] if "extra_weights" in flag else []
            parsed(f"--config={file}", *needed, flag)
            return
        except UserError as error:
            errors.append(str(error))
    raise AssertionError(errors[0])


def dict_of(file: str) -> dict:
    from r2rec_jax.cli.overrides import flatten, read_config

    fields = flatten(read_config(file))
    return fields | {name.rpartition(".")[0]: None for name in fields}


@pytest.mark.parametrize(
    ("file", "flag", "path"),
    [
        (EVAL, "systems.sft+grpo.mode=likelihood", ("systems", "sft+grpo", "mode")),
        (EVAL, "systems['sft+grpo'].mode=likelihood", ("systems", "sft+grpo", "mode")),
        (EVAL, 'systems["sft+grpo"].mode=likelihood', ("systems", "sft+grpo", "mode")),
        (EVAL, "systems.sft.mode=likelihood", ("systems", "sft", "mode")),
        (COMPARED, "systems.no chains.mode=likelihood", ("systems", "no chains", "mode")),
        (
            COMPARED,
            "systems.gpt-4o-mini.server.model=likelihood",
            ("systems", "gpt-4o-mini", "server", "model"),
        ),
        (
            f"{FOLDER}/reproduce.py:ml1m_mini",
            "variants.r2rec, no interaction chain.mode=likelihood",
            ("variants", "r2rec, no interaction chain", "mode"),
        ),
    ],
)
def test_a_name_of_any_characters_can_be_set(file, flag, path):
    found = parsed(f"--config={file}", f"--config.{flag}")
    for name in path:
        found = found[name]
    assert found == "likelihood"


def test_other_prompts_are_set_as_a_whole():
    config = parsed(f"--config={EVAL}", "--config.systems.sft+grpo.prompt={'chains': 0, 'likes': 2}")
    assert config.systems["sft+grpo"].prompt.to_dict() == {"chains": 0, "likes": 2}


@pytest.mark.parametrize(
    ("flag", "line"),
    [
        (
            "systems.sft+grpo.mod=x",
            "unknown config field systems.sft+grpo.mod: did you mean systems.sft+grpo.mode?",
        ),
        (
            "systems.sft+grpo.samples=two",
            "--config.systems.sft+grpo.samples=two: the value must be of type int",
        ),
        (
            "systems['sft+grpo'].samples=two",
            "--config.systems.sft+grpo.samples=two: the value must be of type int",
        ),
        ("systems.sft+grpo=x", "--config.systems.sft+grpo is a section: set its fields, e.g. "),
        (
            "systems.sft.prompt.chains=0",
            "--config.systems.sft.prompt.chains: systems.sft.prompt has no chains yet: set all "
            "differing fields at once, --config.systems.sft.prompt=\"{'chains': 0}\"",
        ),
        (
            "systems.sft+grpo.prompt={'chains': -1}",
            "--config.systems.sft+grpo.prompt.chains=-1: use a whole number from 0 to 2147483647",
        ),
    ],
)
def test_a_wrong_one_is_named_as_it_was_written(flag, line):
    with pytest.raises(UserError) as caught:
        parsed(f"--config={EVAL}", f"--config.{flag}")
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize(
    ("file", "field"),
    [
        ("sft.py", "data.folder"),
        ("sft.py", "annotate.folder"),
        ("sft.py", "model.folder"),
        ("sft.py", "lora.folder"),
        ("data.py:ml-1m", "data.raw"),
        ("data.py:ml-1m", "annotate.local.init"),
        ("grpo.py", "train.init"),
        ("llara.py", "model.item_table"),
        ("eval.py", "systems.sft+grpo.adapter"),
        ("eval.py:compared", "evaluate.replies"),
        ("reproduce.py:table3", "trained.book"),
    ],
)
def test_a_url_in_place_of_a_folder_is_refused(file, field):
    file = f"--config={FOLDER}/{file}"
    for url in ("s3://bucket/a", "gs://bucket/a", "https://host/a"):
        with pytest.raises(UserError) as caught:
            parsed(file, f"--config.{field}={url}")
        assert str(caught.value).startswith(f"--config.{field}={url} is a URL, not a folder: mount or sync ")
    parsed(file, f"--config.{field}=mnt/s3:/a")


def test_a_servers_address_and_model_may_be_urls():
    urls = "base_url=http://127.0.0.1:1/v1", "model=s3://bucket/model"
    parsed(f"--config={FOLDER}/data.py:ml-1m", *(f"--config.annotate.openai.{url}" for url in urls))


@pytest.mark.parametrize(
    ("name", "file", "absent"),
    [
        ("train", EVAL, "stage"),
        ("train", f"{FOLDER}/reproduce.py:quickstart", "stage"),
        ("profile", f"{FOLDER}/baselines.py", "stage"),
        ("plan", f"{FOLDER}/data.py", "stage"),
        ("eval", f"{FOLDER}/grpo.py", "systems"),
        ("eval", f"{FOLDER}/baselines.py", "reward"),
        ("eval", f"{FOLDER}/faithful.py", "reward"),
        ("faithful", EVAL, "users"),
        ("baselines", f"{FOLDER}/sft.py", "systems"),
        ("reproduce", f"{FOLDER}/grpo.py", "sft"),
        ("report", f"{FOLDER}/data.py", "sft"),
    ],
)
def test_a_config_of_another_command_is_refused(name, file, absent):
    (call,) = re.findall(
        r"command\.run\(main.*\)", (ROOT / "launch" / f"{name}.py").read_text(encoding="utf-8")
    )
    reads = ast.literal_eval(re.search(r"reads=(\([^)]*\))", call)[1])
    with pytest.raises(UserError, match=f"is for another command: it has no {absent};"):
        parsed(f"--config={file}", reads=reads)


@pytest.mark.parametrize(
    ("flag", "instead"),
    [
        ("grpo.data.seed=3", "data.seed=3"),
        ("eval.prompt.chains=0", "prompt.chains=0"),
        ("sft.seed=1", "seed=1"),
        ("baselines.mesh.data=1", "mesh.data=1"),
    ],
)
def test_what_all_stages_share_is_set_once(flag, instead):
    file = f"--config={FOLDER}/reproduce.py:quickstart"
    with pytest.raises(UserError, match=f"all stages share this one: set --config.{instead}$"):
        parsed(file, f"--config.{flag}")
    parsed(file, f"--config.{instead}")
    parsed(file, "--config.grpo.train.steps=3", "--config.sft.optimizer.learning_rate=1")


def test_what_needs_no_quotes_is_left_as_it_is():
    argv = ["command", f"--config={EVAL}", "--config.systems.sft.mode=likelihood", "--overwrite"]
    assert quoted(argv, EVAL) is argv

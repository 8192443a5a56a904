"""Explaining a user from the files of a run, and what it says of one it cannot explain."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs import reproduce
from launch.explain import explain
from r2rec_jax.data import prepared
from r2rec_jax.prompts.ranking_prompt import make_record, ranking_prompt
from r2rec_jax.prompts.wording import wording
from r2rec_jax.rank.results import UserLines, write_metrics
from r2rec_jax.runtime.errors import UserError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(dataset, graph, tmp_path) -> Path:
    """A workdir whose finished policy put the truth of one user second; the config's seed is not its own."""
    prepared.save(dataset, tmp_path / "data")
    user = int(dataset.split.users["evaluation"][0])
    record = make_record(dataset, graph, user, chains=5, likes=5, seed=4)
    prompt = ranking_prompt(record, dataset.catalog, wording("compact"), answer="titles", places=1)
    titles = [dataset.catalog.title[item] for item in record.candidates]
    truth = dataset.catalog.title[record.truth]
    other = next(title for title in titles if title != truth)
    lines = UserLines(tmp_path / "eval", dataset)
    lines.append("popularity", 0, user, 7)
    said = {"prompt": prompt, "reasoning": f"Kai has seen\n{other}.", "ranking": [other, truth]}
    lines.append("r2rec", 0, user, 2, **said)
    write_metrics(tmp_path / "eval", dataset, 1, 4, {"popularity": {}, "r2rec": {}}, {})
    return tmp_path


def test_a_user_is_explained_from_the_files(run, dataset):
    user = int(dataset.split.users["evaluation"][0])
    text = explain(reproduce.get_config("quickstart"), run, str(user), 100, False)
    assert text.startswith(f"User {user}") and "is number 2 of 20 candidates" in text
    assert "Popularity: 7" in text and "R2Rec: 2" in text
    assert text.count("the user rated") == 10  # both ends of five chains


def test_a_run_made_stage_by_stage_is_explained(run, dataset):
    """Its policy has the name of configs/eval.py."""
    for name in ("users.jsonl", "metrics.json"):
        path = run / "eval" / name
        path.write_text(path.read_text().replace('"r2rec"', '"sft+grpo"'))
    user = int(dataset.split.users["evaluation"][0])
    text = explain(reproduce.get_config("quickstart"), run, str(user), 100, False)
    assert "is number 2 of 20 candidates" in text and "R2Rec: 2" in text


def test_a_prompt_is_the_one_that_was_evaluated_whatever_config_is_given(run, dataset):
    """configs/reproduce.py:ml1m words prompts for another data set; the evaluation has recorded its own."""
    user, other = str(dataset.split.users["evaluation"][0]), reproduce.get_config("ml1m")
    with pytest.raises(UserError, match=rf"the recorded prompt of user {user} does not match these data"):
        explain(other, run, user, 100, False)
    evaluated = reproduce.get_config("quickstart").eval
    evaluated.prompt = other.prompt.to_dict() | {"places": 3}
    own = {"r2rec": {"prompt": {"wording": "compact", "answer": "titles", "places": 1}}}
    (run / "eval" / "config.json").write_text(json.dumps(evaluated.to_dict() | {"systems": own}))
    assert "is number 2 of 20 candidates" in explain(other, run, user, 100, False)


def test_who_cannot_be_explained_is_one_line(run, dataset, tmp_path):
    config = reproduce.get_config("quickstart")
    evaluated = [int(user) for user in dataset.split.users["evaluation"]]
    sft = int(dataset.split.users["sft"][0])
    for user, workdir, said in (
        ("u10000", run, r"no user has the id u10000: the nearest are \d+"),
        (str(sft), run, rf"user {sft} belongs to the sft group.*try one of {evaluated[0]}"),
        (None, run, rf"--user is missing.*--user={evaluated[0]}"),
        (str(evaluated[1]), run, "has no line of 'r2rec'.*run the same command again"),
        (str(evaluated[0]), tmp_path / "absent", "no evaluation in.*launch.reproduce"),
    ):
        with pytest.raises(UserError, match=said):
            explain(config, workdir, user, 80, False)


def test_the_command_ends_in_one_line_and_code_2(tmp_path):
    flags = [f"--config={ROOT}/configs/reproduce.py:quickstart", f"--workdir={tmp_path}", "--user=3"]
    command = [sys.executable, "-m", "launch.explain", *flags]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no evaluation in ") and done.stderr.count("\n") == 1

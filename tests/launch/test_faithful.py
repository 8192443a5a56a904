"""The command on the embedded model, and what it refuses."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import data as data_config
from configs import faithful as faithful_config
from configs.base import system
from r2rec_jax.prompts.answer_parser import ORDER
from r2rec_jax.runs import faithfulness, preparation
from tests.launch.road import ROOT, lines, refused

FILES = ("users.jsonl", "faithful.json", "faithful.txt", "unsupported.jsonl")
USERS = 6


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> ConfigDict:
    """The bare embedded model, a few users, blocks of two."""
    folder = tmp_path_factory.mktemp("faithful")
    made = data_config.get_config("generated")
    made.data.update({"generated_users": 120, "folder": str(folder / "data")})
    made.data.sizes.update({"sft": 6, "grpo": 5, "validation": 3, "evaluation": 8})
    preparation.main(made, folder / "data", False)
    c = faithful_config.get_config("quickstart")
    c.data.update(made.data.to_dict())
    c.systems.r2rec.adapter, c.users, c.evaluate.batch_size = "", USERS, 4
    return c


@pytest.mark.slow
def test_the_command_on_the_embedded_model(config, tmp_path):
    measures = faithfulness.examine(config, tmp_path / "run", False)["r2rec"]
    report = json.loads((tmp_path / "run" / "faithful.json").read_text())
    assert report["users"] == USERS and report["systems"]["r2rec"] == measures
    rows = lines(tmp_path / "run", "users.jsonl")
    assert len(rows) == USERS
    for row in rows:
        own = row["scores"]["own"]
        assert row["truth_rank"] == 1 + sum(score > own[row["truth"]] for score in own)
        assert {"none", "half", "another user's"} < set(row["scores"])
        said = [line for line in row["reasoning"].split("\n") if line.strip()]
        if said[-1].startswith(ORDER):  # an answer within the reasoning is no statement
            said.pop()
        assert [one["text"] for one in row["statements"]] == said
    hits = np.mean([row["truth_rank"] == 1 for row in rows])
    assert measures["reasoning"]["own"]["hr@1"]["mean"] == pytest.approx(hits)
    assert 0 < measures["edits"]["cut"]["moved"]["users"] <= USERS
    # The bare model has never been told the wording: it makes things up, which must show.
    wrong = lines(tmp_path / "run", "unsupported.jsonl")
    assert len(wrong) == measures["facts"]["unsupported"] > 0
    reasonings = {row["user"]: (row["reasoning"], row["prompt"]) for row in rows}
    for one in wrong:
        assert (one["reasoning"], one["prompt"]) == reasonings[one["user"]]
        assert one["statement"] in one["reasoning"] and one["unsupported"] and one["user_id"]
        if one["unsupported"] == ["title"]:
            words = re.findall(r"[A-Z]\w+", one["statement"])
            assert any(word not in one["prompt"] for word in words)
    goes_on(config, tmp_path)


def goes_on(config, folder: Path) -> None:
    """Stopped within a block, the same command ends with the same files."""
    whole = {name: (folder / "run" / name).read_bytes() for name in FILES}
    for name in FILES[1:]:
        (folder / "run" / name).unlink()
    kept = whole["users.jsonl"].splitlines(keepends=True)[:3]
    (folder / "run" / "users.jsonl").write_bytes(b"".join(kept))
    faithfulness.examine(config, folder / "run", False)
    assert {name: (folder / "run" / name).read_bytes() for name in FILES} == whole


def test_what_cannot_be_tried_is_refused(config, tmp_path):
    def changed(**changes) -> ConfigDict:
        other = config.copy_and_resolve_references()
        other.update(changes)
        return other

    for users in (1, 9):
        refused(faithfulness.main, changed(users=users), tmp_path / "run", f"users={users}", "use 2 to 8")
    for one in (system(), system(mode="likelihood", samples=2), system(kind="tallrec")):
        other = changed()
        other.systems = ConfigDict({"mine": one})
        refused(faithfulness.main, other, tmp_path / "run", "systems.mine", "mode likelihood")
    other = changed()
    other.systems.r2rec.adapter = str(tmp_path / "absent")
    refused(faithfulness.main, other, tmp_path / "run", "no adapter at", "launch.train")


def test_the_command_ends_in_one_line_and_code_2(tmp_path):
    flags = [f"--config={ROOT}/configs/faithful.py:quickstart", f"--workdir={tmp_path / 'run'}"]
    command = [sys.executable, "-m", "launch.faithful", *flags, f"--config.data.folder={tmp_path}/absent"]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: no ") and done.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()

"""launch.soak on a short run."""

import json
import math

import pytest

from r2rec_jax.chaos.soak import NEEDS
from tests.launch.road import ROOT, command

SMALL = ("--config.train.steps=40", "--config.train.checkpoint_every=10", "--config.train.evaluate_every=15")
SMALL += ("--config.soak.every=2",)


@pytest.mark.slow
def test_a_short_run_is_measured_and_drawn(tmp_path):
    flags = [f"--config={ROOT}/configs/soak.py", f"--workdir={tmp_path / 'soak'}", *SMALL]
    done = command("soak", *flags, cwd=ROOT)
    assert done.returncode in (0, 1), done.stderr  # so few steps may end while memory still grows
    record = json.loads((tmp_path / "soak" / "soak.json").read_text())
    assert [row["step"] for row in record["rows"]] == [*range(2, 41, 2)]
    for row in record["rows"]:
        assert set(row) == {"step", *(need.name for need in NEEDS)}
        assert all(math.isfinite(value) and value > 0 for value in row.values())
    flat = {need["name"]: need["flat"] for need in record["needs"]}
    assert flat["descriptors"] and flat["arrays"]
    assert (done.returncode == 0) == all(flat.values())
    assert (tmp_path / "soak" / "soak.svg").read_text().count("</svg>") == 1
    again = command("soak", *flags, cwd=ROOT)
    assert again.returncode == 2 and "had been done before: add --overwrite" in again.stderr

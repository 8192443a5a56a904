import time

import numpy as np
import pytest

from tests.chaos.moments import Moment, Watch, draw, unfinished


def test_moments_are_of_every_kind_and_a_seed_repeats_them():
    drawn = [[draw(np.random.default_rng(1), 8.0, 30)] for _ in range(2)]
    assert drawn[0] == drawn[1]
    rng = np.random.default_rng(0)
    many = [draw(rng, 8.0, 30) for _ in range(400)]
    by_time = [one.time_s for one in many if not one.unfinished and not one.change]
    assert 100 < len(by_time) < 220 and min(by_time) < 0.5 and 7.5 < max(by_time) <= 8
    assert {one.change for one in many} == {*range(31)}
    assert {one.unfinished for one in many} == {0, 1, 2, 3}
    assert 50 < sum(one.alone for one in many) < 150


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        (".metrics.jsonl.tmp", True),
        (".out.abcd1234.tmp", True),
        ("4.orbax-checkpoint-tmp", True),
        ("state.orbax-checkpoint-tmp-12", True),
        ("0.part", True),
        ("4", False),
        ("metrics.jsonl", False),
        ("partial", False),
    ],
)
def test_what_is_unfinished(tmp_path, name, is_one):
    (tmp_path / "deep" / name / "inside.tmp").mkdir(parents=True)
    inside = tmp_path / "deep" / name / "inside.tmp"
    assert unfinished(tmp_path) == {str(tmp_path / "deep" / name if is_one else inside)}


def test_a_watch_waits_for_the_nth_unfinished_file_and_tells_what_the_run_was_at(tmp_path):
    (tmp_path / "old.tmp").touch()
    watch = Watch(tmp_path, Moment(unfinished=2))
    assert watch.phase("") == "starting" and watch.phase("said") == "working"
    assert not watch.now(0.0)
    (tmp_path / "one.tmp").touch()
    assert not watch.now(0.0)
    assert watch.phase("") == "writing"
    (tmp_path / "one.tmp").rename(tmp_path / "one")
    assert watch.phase("") == "working"
    (tmp_path / "two.tmp").touch()
    assert watch.now(0.0)
    assert Watch(tmp_path, Moment(time_s=0.0)).now(time.monotonic())
    assert not Watch(tmp_path, Moment(time_s=9.0)).now(time.monotonic())
    assert not Watch(tmp_path, Moment(change=1)).now(0.0)

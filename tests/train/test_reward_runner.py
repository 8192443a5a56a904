"""Functions that hang, raise or end their process, in processes of their own: each costs its completion."""

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from ml_collections import ConfigDict

from configs import grpo
from r2rec_jax.pipeline.prompt_source import Prompt
from r2rec_jax.prompts.chat import Chat
from r2rec_jax.prompts.ranking_prompt import RankingRecord
from r2rec_jax.prompts.train_tokenizer import train_tokenizer
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.train.reward_runner import RewardRunner, reward_means

ROOT = Path(__file__).parents[2]
TITLES = ["Amber", "Birch", "Cedar", "Dune"]
REASONING = "One plain short step.\nAnother plain short step.\nThe last short step."
RECORD = RankingRecord(7, {}, [], [], np.arange(10, 14, dtype=np.int32), np.ones(4, int), 11)
PROMPT = Prompt(RECORD, "", np.array([], np.int32), TITLES)

# A module of a user's own.
MODULE = r"""
import ctypes, os, signal, time

class Mute(Exception):
    def __str__(self):
        raise ValueError("no word of it")

def brevity(record, said, config):
    return {"brevity": len(said.answer) / 100, "user": record.user}

def trouble(record, said, config):
    match said.reasoning:
        case "hang":
            while True:
                pass
        case "sleep":
            time.sleep(1000)
        case "raise":
            raise ValueError("not this one")
        case "end":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "mute":
            raise Mute
        case "escape":
            raise ValueError("\x1b[2J\u202e" + "long " * 1000)
        case "exit":
            raise SystemExit(3)
        case "nan":
            return {"trouble": float("nan")}
        case "inf":
            return {"trouble": float("-inf")}
        case "large":
            return {"trouble": 1e39}
        case "name":
            return {1: 0.5}
        case "none":
            return None
    return {"trouble": 1}

def process(record, said, config):
    from jax._src import xla_bridge
    return {"pid": os.getpid(), "devices": len(xla_bridge._backends)}

def again(record, said, config):
    return {"rank": 1}

number = 3
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tokenizer's."""
    folder = tmp_path_factory.mktemp("tokenizer")
    train_tokenizer([REASONING, "Order:", *TITLES], 300).save(str(folder / "tokenizer.json"))
    return folder


@pytest.fixture
def make(folder, tmp_path, monkeypatch):
    (tmp_path / "own_rewards.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)

    return lambda *extra, **settings: runner(config_of(folder, *extra, **settings))


def runner(config: ConfigDict) -> RewardRunner:
    return RewardRunner(Chat(config.model.folder), config.prompt, config.reward, config.data.folder)


def config_of(folder, *extra, workers=1, timeout_s=20.0, **settings) -> ConfigDict:
    config = grpo.get_config()
    config.model.folder = str(folder)
    config.prompt.update({"answer": "titles", "places": 2})
    extra = tuple(f"own_rewards:{name}" for name in extra)
    config.reward.update({"extra": extra, "workers": workers, "timeout_s": timeout_s, **settings})
    return config


def begin(scorer, reasoning=REASONING, answer="Order: Birch > Amber", prompt=PROMPT):
    chat = scorer._scorer._chat
    return scorer.submit(prompt, np.array(chat.completion(reasoning, answer), np.int32), False)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_completions_are_paid_in_order_wherever_it_is_done(make, workers):
    answers = ["Order: Birch > Amber", "Order: Amber > Birch", "Order: Amber > Cedar", "Order: Cedar"]
    with make("brevity", workers=workers) as scorer:
        scored = scorer.collect([begin(scorer, answer=answer) for answer in answers])
    for one, answer, rank in zip(scored, answers, (1, 2, 0, 0), strict=True):
        assert (one.completion.answer, one.completion.reasoning, one.completion.truth_rank) == (
            answer,
            REASONING,
            rank,
        )
        assert one.completion.prompt is PROMPT
        expected = {"step": 1.0, "rank": 1 / math.log2(1 + rank) if rank else 0.0}
        expected |= {"brevity": len(answer) / 100, "user": 7.0}
        assert one.parts == pytest.approx(expected)
        # A part without a weight of its own counts once.
        assert one.reward == pytest.approx(1 + 2 * expected["rank"] + len(answer) / 100 + 7)


def test_a_part_has_its_weight(make):
    with make("brevity", workers=0, brevity_weight=10.0, user_weight=0.0) as scorer:
        (one,) = scorer.collect([begin(scorer)])
    assert one.reward == pytest.approx(3 + 10 * len("Order: Birch > Amber") / 100)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_function_has_its_weight_wherever_it_is_done(make, workers):
    with make("brevity", workers=workers, extra_weights=(10.0,)) as scorer:
        (one,) = scorer.collect([begin(scorer)])
    assert one.reward == pytest.approx(3 + 10 * (len("Order: Birch > Amber") / 100 + 7))


def test_what_was_judged_elsewhere_is_paid_as_well(make):
    with make("brevity") as scorer:
        (one,) = scorer.collect([begin(scorer)])
        assert scorer.score([one.completion]) == [one]


@pytest.mark.parametrize("how", ["hang", "sleep"])
def test_what_hangs_is_killed_and_replaced(make, how):
    with make("trouble", "process", timeout_s=0.5) as scorer:
        scorer.collect([begin(scorer)])  # the worker has started
        start = time.monotonic()
        scored = scorer.collect([begin(scorer, reasoning) for reasoning in ("fine", how, "fine")])
        took = time.monotonic() - start
    assert [one.fault for one in scored] == ["", "no result within 0.5 s", ""]
    assert math.isnan(scored[1].reward) and scored[1].parts == {}
    assert scored[1].completion.reasoning == how  # what the completion says is known all the same
    assert 0.5 <= took < 30
    before, after = (int(scored[k].parts["pid"]) for k in (0, 2))
    assert before != after
    with pytest.raises(ProcessLookupError):
        os.kill(before, 0)


FAILURES = {
    "raise": "ValueError: not this one",
    "exit": "SystemExit: 3",
    "nan": "ValueError: part 'trouble' is nan",
    "inf": "ValueError: part 'trouble' is -inf",
    "large": "ValueError: the weighted parts add up to 1e+39",
    "name": "TypeError: part 1 is not named by a text",
    "none": "AttributeError: 'NoneType' object has no attribute 'items'",
    "mute": "own_rewards.Mute: <exception str() failed>",
    "end": "its process ended",
    "kill": "its process ended",
    "segfault": "its process ended",
}
DEADLY = ("end", "kill", "segfault")


@pytest.mark.parametrize(
    ("workers", "how"),
    [(workers, how) for workers in (0, 2) for how in FAILURES if workers or how not in DEADLY],
)
def test_what_fails_costs_its_completion_only(make, caplog, workers, how):
    fault = FAILURES[how]
    with make("trouble", workers=workers) as scorer:
        scored = scorer.collect([begin(scorer, reasoning) for reasoning in ("a", how, "b", "c")])
    assert [one.fault for one in scored] == ["", fault, "", ""]
    assert [one.parts.get("trouble") for one in scored] == [1, None, 1, 1]
    found = reward_means(scored)
    assert found["failed_count"] == 1 and found["trouble"] == 1
    assert found["reward"] == pytest.approx(np.mean([scored[k].reward for k in (0, 2, 3)]))
    assert f"1 of 4 rewards failed, e.g. {fault}" in caplog.text


def test_what_an_exception_says_stays_one_line_of_text(make):
    with make("trouble", workers=0) as scorer:
        (one,) = scorer.collect([begin(scorer, "escape")])
    assert one.fault.startswith("ValueError: \\x1b[2J\\u202elong ") and len(one.fault) < 250
    assert one.fault.isprintable()


def test_all_may_fail(make):
    with make("trouble", workers=0) as scorer:
        found = reward_means(scorer.collect([begin(scorer, "raise")] * 2))
    assert math.isnan(found.pop("reward")) and found == {"failed_count": 2}


def test_workers_are_other_processes_without_devices(make):
    with make("process", workers=2) as scorer:
        scored = scorer.collect([begin(scorer) for _ in range(40)])
    assert {one.parts["devices"] for one in scored} == {0}
    pids = {int(one.parts["pid"]) for one in scored}
    assert os.getpid() not in pids
    for pid in pids:  # they end with the scorer
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_leaving_does_not_wait_for_what_is_left(make):
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt), make("trouble", timeout_s=1.0) as scorer:
        for _ in range(100):
            begin(scorer, "hang")
        raise KeyboardInterrupt
    assert time.monotonic() - start < 30


RUN = """
import sys, time
from tests.train.test_reward_runner import PROMPT, begin, config_of, runner

folder = sys.argv[1]
with runner(config_of(folder, "process", "trouble", timeout_s=1.0)) as scorer:
    (one,) = scorer.collect([begin(scorer)])
    begin(scorer, sys.argv[2])
    time.sleep(0.3)
    print(int(one.parts["pid"]), flush=True)
    time.sleep(100)
"""


@pytest.mark.parametrize("busy", ["hang", "idle"])
def test_no_worker_outlives_a_run_that_was_killed(folder, tmp_path, busy):
    (tmp_path / "own_rewards.py").write_text(MODULE)
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), busy],
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{tmp_path}", "JAX_PLATFORMS": "cpu"},
        stdout=subprocess.PIPE,
        text=True,
    )
    worker = int(run.stdout.readline())
    run.kill()
    run.wait()
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists() or "Z" in Path(f"/proc/{worker}/stat").read_text().split()[2]:
            return
        time.sleep(0.1)
    pytest.fail("the worker is still there")


def test_two_parts_of_one_name_are_refused(make):
    with make("again", workers=0) as scorer:
        (one,) = scorer.collect([begin(scorer)])
    assert one.fault == "ValueError: two functions give a part 'rank'"


@pytest.mark.parametrize(
    "name", ["own_rewards:absent", "absent:brevity", "own_rewards", "own_rewards:number", ""]
)
def test_a_function_that_is_not_there_is_named_before_anything_runs(folder, tmp_path, monkeypatch, name):
    (tmp_path / "own_rewards.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    config = grpo.get_config()
    config.model.folder, config.reward.extra = str(folder), (name,)
    with pytest.raises(UserError, match=f"reward.extra '{name}'"):
        runner(config)

"""Evaluation: policies on the same frozen candidates as launch.baselines.

Temperature 0.6 and top-p 0.9, and the mean of three runs, as the paper; greedy decoding, one run of it,
with --config.rollout.temperature=0.

    python -m launch.eval --config=configs/eval.py --workdir=runs/ml1m/eval

Needs what configs/grpo.py needs and the workdirs that `systems` names. The paper reports about 2 s a
user on one A100-80G; not measured here. `configs/eval.py:quickstart` takes the embedded default.

What a system asks and how it answers is its own, e.g. --config.systems.sft.mode=likelihood, or, in a
config file, system("runs/ml1m/sft", prompt={"chains": 0}, samples=8).
"""

from ml_collections import ConfigDict

from configs.base import base, preset_of, sampling, system, tiny


def get_config(preset: str | None = None) -> ConfigDict:
    c = sampling(base())
    c.rollout.update({"temperature": 0.6, "top_p": 0.9})
    del c.rollout.constrained  # a system's mode says so
    c.systems = ConfigDict({"base": system(), "sft": system("runs/ml1m/sft")})
    c.systems["sft+grpo"] = system("runs/ml1m/grpo")
    c.evaluate = ConfigDict({"batch_size": 32})  # completions that decode at once
    c.evaluate.runs = 3  # of which a user's mean counts; a system without chance has one
    if preset_of(preset, ("quickstart",)):
        tiny(c)
        c.systems.sft.adapter = "runs/quickstart/sft"
        c.systems["sft+grpo"].adapter = "runs/quickstart/grpo"
        c.evaluate.update({"batch_size": 50, "runs": 1})
        c.rollout.update({"max_tokens": 64, "chunk": 16})
        c.reward.step_needs_valid_answer = True
    return c

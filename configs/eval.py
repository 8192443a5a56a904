"""Evaluation: policies on the same frozen candidates as launch.baselines.

Temperature 0.6 and top-p 0.9, as the paper.

    python -m launch.eval --config=configs/eval.py --workdir=runs/ml1m/eval

Needs what configs/grpo.py needs and the workdirs that `systems` names. The paper reports about 2 s a
user on one A100-80G; not measured here. `configs/eval.py:quickstart` takes the embedded default.
"""

from ml_collections import ConfigDict

from configs.base import base, preset_of, sampling, tiny


def get_config(preset: str | None = None) -> ConfigDict:
    c = sampling(base())
    c.rollout.update({"temperature": 0.6, "top_p": 0.9})
    # Name -> workdir of the adapter's training run; "" is the bare base model.
    c.systems = ConfigDict({"base": "", "sft": "runs/ml1m/sft", "sft+grpo": "runs/ml1m/grpo"})
    c.evaluate = ConfigDict({"batch_size": 32})
    if preset_of(preset, ("quickstart",)):
        tiny(c)
        c.systems.update({"sft": "runs/quickstart/sft", "sft+grpo": "runs/quickstart/grpo"})
        c.evaluate.batch_size = 50
        c.rollout.update({"max_tokens": 64, "chunk": 16})
        c.reward.step_needs_valid_answer = True
    return c

"""Tests of a policy's reasons: whether its ranking follows the prompt, and whether the prompt supports them.

    python -m launch.faithful --config=configs/faithful.py:quickstart --workdir=runs/quickstart/faithful

Needs what configs/eval.py needs, and its policies. For another run set its adapter,
--config.systems.r2rec.adapter=runs/mine/grpo, or list systems in a config file. Each ranks by likelihood
and may have prompt fields of its own. A user takes a dozen completions per run, where launch.eval takes
one.
"""

from ml_collections import ConfigDict

from configs import eval as evaluation
from configs.base import preset_of, system
from configs.declared import FaithfulRun


def get_config(preset: str | None = None) -> ConfigDict:
    preset = preset_of(preset, ("quickstart", "mini"))
    c = evaluation.get_config(preset or None)
    run = {"": "ml1m", "mini": "mini/seed0"}.get(preset, preset)
    c.systems = ConfigDict({"r2rec": system(f"runs/{run}/grpo", mode="likelihood")})
    c.users = {"quickstart": 800, "mini": 1000}.get(preset, FaithfulRun.users)
    c.evaluate.runs = 1  # reasonings per prompt
    del c.reward, c.evaluate.replies  # no rewards and no server
    return c

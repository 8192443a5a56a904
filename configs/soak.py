"""GRPO for long on small things, to see whether anything grows.

    python -m launch.soak --config=configs/soak.py --workdir=runs/soak

2,000 steps of the embedded model on generated data from a fresh adapter, with validation, checkpoints and
worker processes; three to four minutes on two CPU cores. Needs nothing.
"""

from ml_collections import ConfigDict

from configs import grpo
from configs.declared import SoakConfig
from r2rec_jax.runtime.fields import to_config_dict


def get_config() -> ConfigDict:
    c = grpo.get_config("quickstart")
    c.data.generated_users = 300
    c.data.sizes.update({"sft": 10, "grpo": 120, "validation": 16, "evaluation": 10})
    c.train.update(
        {"init": "", "batch_size": 4, "steps": 2000, "checkpoint_every": 50, "evaluate_every": 100}
    )
    c.evaluate.batch_size = 16
    c.grpo.group = 4
    c.rollout.update({"max_tokens": 16, "chunk": 8})
    # What they need must not grow either.
    c.data.workers = c.reward.workers = 1
    c.soak = to_config_dict(SoakConfig())
    return c

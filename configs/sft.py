"""SFT of an adapter on teacher traces (the paper: lr 5e-5, 10 epochs of 500 samples).

    python -m launch.train --config=configs/sft.py --workdir=runs/ml1m/sft

Needs the 8B in models/, data from launch.prepare and traces from launch.annotate (both with
configs/data.py:ml-1m). The paper reports 2.5 hours on one A100-80G; not measured here.

    python -m launch.train --config=configs/sft.py:quickstart --workdir=runs/quickstart/sft

The bundled data and model; about a minute on two CPU cores.
"""

from ml_collections import ConfigDict

from configs.base import mini, preset_of, tiny
from configs.declared import SFTRun
from r2rec_jax.runtime.fields import to_config_dict
from r2rec_jax.train.config import SFTTrainConfig


def get_config(preset: str | None = None) -> ConfigDict:
    # 625 steps: 10 epochs of 500 traces of each task.
    train = SFTTrainConfig(batch_size=16, steps=625, response_buckets=(112, 224, 256, 512, 1024))
    c = to_config_dict(SFTRun(train=train))
    preset = preset_of(preset, ("quickstart", "mini"))
    if preset == "mini":
        mini(c)
        c.train.update({"batch_size": 32, "steps": 200, "response_buckets": (64,), "checkpoint_every": 100})
        c.optimizer.learning_rate = 1e-3
    if preset == "quickstart":
        tiny(c)
        c.train.update({"batch_size": 32, "steps": 100, "response_buckets": (80,), "checkpoint_every": 50})
        c.optimizer.learning_rate = 2e-3
    return c

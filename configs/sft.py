"""SFT of an adapter on teacher traces (the paper: lr 5e-5, 10 epochs of 500 samples).

    python -m launch.train --config=configs/sft.py --workdir=runs/ml1m/sft

Needs the 8B in models/, data from launch.prepare and traces from launch.annotate (both with
configs/data.py:ml-1m). The paper reports 2.5 hours on one A100-80G; not measured here.

    python -m launch.train --config=configs/sft.py:quickstart --workdir=runs/quickstart/sft

The embedded data and model; about a minute on two CPU cores.
"""

from ml_collections import ConfigDict

from configs.base import base, mini, preset_of, tiny


def get_config(preset: str | None = None) -> ConfigDict:
    c = base()
    c.stage = "sft"
    c.train.batch_size = 16
    c.train.steps = 625  # 10 epochs of 500 traces of each task
    c.train.response_buckets = (112, 224, 256, 512, 1024)
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

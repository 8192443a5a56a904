"""The systems without a language model, on the same candidates as all other systems.

    python -m launch.baselines --config=configs/baselines.py --workdir=runs/ml1m/baselines

Needs data from launch.prepare with configs/data.py:ml-1m. The closed-form systems take seconds, the others
minutes each on two CPU cores. `configs/baselines.py:quickstart` uses the bundled data and the systems that
train in seconds.

`systems` lists what runs; each neural system has a section of its own name. Early stopping watches NDCG@3 of
the split's users who are not evaluated. Widths, layers and dropout are the papers' where they state them for
MovieLens-1M; SASRec and GRU4Rec are strong because of their full softmax (Klenitskiy and Vasilev 2023).
"""

from ml_collections import ConfigDict

from configs.base import base, mini, preset_of, tiny
from r2rec_jax.baselines.config import MODULES, SASRecConfig, training
from r2rec_jax.runtime.fields import to_config_dict


def get_config(preset: str | None = None) -> ConfigDict:
    c = base()
    c.systems = ("random_order", "popularity", "item_knn", "ease", "graphsage", "ngcf", "lightgcn")
    c.systems += ("gru4rec", "caser", "sasrec_bce", "sasrec")
    sections = {name: kind() for name, kind in MODULES.items()}
    sections["sasrec_bce"] = SASRecConfig(loss="bce", train=training(4000))
    c.update({name: to_config_dict(section) for name, section in sections.items()})
    preset = preset_of(preset, ("quickstart", "mini"))
    if preset == "mini":
        mini(c)
        c.systems = ("popularity", "item_knn", "ease", "sasrec")
    if preset == "quickstart":
        tiny(c)
        c.systems = ("random_order", "popularity", "item_knn", "ease")
    return c

"""The systems that need no language model, on the candidates that every other system ranks.

    python -m launch.baselines --config=configs/baselines.py --workdir=runs/ml1m/baselines

Needs data from launch.prepare with configs/data.py:ml-1m. The closed-form systems take seconds, the others
minutes each on two CPU cores. `configs/baselines.py:quickstart` takes the embedded data and those that
train in seconds.

`systems` lists what is run; a neural one has a section of its own name. Early stopping watches NDCG@3 of
the split's users who are not evaluated. Widths, layers and dropout are the papers' where they state them for
MovieLens-1M; SASRec's and GRU4Rec's full softmax is what makes them strong (Klenitskiy and Vasilev 2023).
"""

from ml_collections import ConfigDict

from configs.base import base, mini, preset_of, tiny


def get_config(preset: str | None = None) -> ConfigDict:
    c = base()
    c.systems = ("random_order", "popularity", "item_knn", "ease", "graphsage", "ngcf", "lightgcn")
    c.systems += ("gru4rec", "caser", "sasrec_bce", "sasrec")

    c.random_order = ConfigDict({"module": "random_order"})
    c.popularity = ConfigDict({"module": "popularity"})
    c.item_knn = ConfigDict(
        {"module": "item_knn", "k": 50, "shrink": 10.0, "exponent": 0.5, "profile": "all"}
    )
    # A profile of the last five likes, "recent_likes", is stronger on MovieLens-1M.
    c.ease = ConfigDict({"module": "ease", "l2": 2000.0, "profile": "all"})

    sequence = {"length": 50, "width": 64, "dropout": 0.2, "loss": "softmax"}
    c.sasrec = neural(c, "sasrec", sequence | {"layers": 2, "heads": 1}, steps=2500)
    c.sasrec_bce = neural(c, "sasrec", sequence | {"layers": 2, "heads": 1, "loss": "bce"}, steps=4000)
    c.gru4rec = neural(c, "gru4rec", sequence | {"hidden": 128}, steps=2000)
    convolutions = {"window": 5, "horizontal": 16, "vertical": 4, "width": 50, "dropout": 0.5}
    c.caser = neural(c, "caser", sequence | convolutions, steps=1500)

    graph = {"width": 64, "layers": 3, "liked": True, "l2": 1e-4}
    c.lightgcn = propagating(c, "lightgcn", graph, steps=500)
    c.ngcf = propagating(c, "ngcf", graph | {"dropout": 0.1}, steps=300)
    c.graphsage = propagating(c, "graphsage", graph | {"layers": 2, "dropout": 0.1}, steps=400)
    preset = preset_of(preset, ("quickstart", "mini"))
    if preset == "mini":
        mini(c)
        c.systems = ("popularity", "item_knn", "ease", "sasrec")
    if preset == "quickstart":
        tiny(c)
        c.systems = ("random_order", "popularity", "item_knn", "ease")
    return c


def neural(c: ConfigDict, module: str, fields: dict, *, steps: int) -> ConfigDict:
    """A neural system's section: its module, sizes, training and optimiser."""
    section = ConfigDict({**fields, "module": module})
    section.train = c.train.copy_and_resolve_references()
    section.train.update({"batch_size": 128, "steps": steps, "log_every": 50})
    section.train.update({"evaluate_every": 500, "checkpoint_every": 500})
    section.train.update({"best_metric": "validation/ndcg@3", "patience": 5})
    section.optimizer = c.optimizer.copy_and_resolve_references()
    section.optimizer.update({"learning_rate": 1e-3, "final_fraction": 0.1})
    return section


def propagating(c: ConfigDict, module: str, fields: dict, *, steps: int) -> ConfigDict:
    """The same for a graph model: each step propagates along all edges, so steps are few and large."""
    section = neural(c, module, fields, steps=steps)
    section.train.update({"batch_size": 65_536, "log_every": 10})
    section.train.update({"evaluate_every": 50, "checkpoint_every": 50})
    section.optimizer.learning_rate = 0.03
    return section

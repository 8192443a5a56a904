"""Config sections of the baselines, one class per module.

Defaults are the values of the papers for MovieLens-1M, if stated there.
"""

from ml_collections import ConfigDict

from r2rec_jax.runtime.fields import Section, declaration, field, section
from r2rec_jax.runtime.ranges import LESS_THAN_ONE, POSITIVE, one_of, real, whole
from r2rec_jax.train.config import OptimizerConfig, TrainConfig

PROFILES = ("all", "recent_likes")
LOSSES = ("softmax", "bce")


def training(steps: int, **fields) -> TrainConfig:
    """Early stopping by NDCG@3 of the users who are not evaluated."""
    every = {"log_every": 50, "evaluate_every": 500, "checkpoint_every": 500, "batch_size": 128}
    stopping = {"best_metric": "validation/ndcg@3", "patience": 5}
    return TrainConfig(steps=steps, **every | stopping | fields)


def graph_training(steps: int) -> TrainConfig:
    """Few steps with large batches, because each step of a graph model propagates along all edges."""
    return training(steps, batch_size=65_536, log_every=10, evaluate_every=50, checkpoint_every=50)


@declaration
class BaselineConfig(Section):
    """A system without a language model."""

    module: str = field("", "Module of r2rec_jax/baselines that ranks.")

    @classmethod
    def variant(cls, config: ConfigDict) -> type["BaselineConfig"]:
        return MODULES.get(config.get("module"), cls)


@declaration
class RandomOrderConfig(BaselineConfig):
    """Candidates in random order."""

    module: str = field("random_order", "Module of r2rec_jax/baselines that ranks.")


@declaration
class PopularityConfig(BaselineConfig):
    """Candidates by their number of interactions."""

    module: str = field("popularity", "Module of r2rec_jax/baselines that ranks.")


@declaration
class ItemKNNConfig(BaselineConfig):
    """Item-based nearest neighbours."""

    module: str = field("item_knn", "Module of r2rec_jax/baselines that ranks.")
    k: int = field(50, "Neighbours of an item.", whole(1))
    shrink: float = field(10.0, "Added to the denominator of similarities, against rare items.", real(0.0))
    profile: str = field("all", "What counts of a user: all, or the last five likes.", one_of(*PROFILES))


@declaration
class EASEConfig(BaselineConfig):
    """EASE^R (Steck 2019)."""

    module: str = field("ease", "Module of r2rec_jax/baselines that ranks.")
    l2: float = field(2000.0, "L2 regularisation of the item weights.", POSITIVE)
    profile: str = field("all", "What counts of a user: all, or the last five likes.", one_of(*PROFILES))


@declaration
class NeuralConfig(BaselineConfig):
    """A system that is trained."""

    optimizer: OptimizerConfig = section(OptimizerConfig(learning_rate=1e-3, final_fraction=0.1))


@declaration
class SequenceConfig(NeuralConfig):
    """A model of the next item."""

    length: int = field(50, "Most recent items that are read.", whole(1))
    width: int = field(64, "Width of the embeddings.", whole(1))
    dropout: float = field(0.2, "Dropout probability.", LESS_THAN_ONE)
    loss: str = field(
        "softmax", "Loss over all items, or binary cross-entropy with one negative.", one_of(*LOSSES)
    )


@declaration
class SASRecConfig(SequenceConfig):
    """SASRec (Kang and McAuley 2018)."""

    module: str = field("sasrec", "Module of r2rec_jax/baselines that ranks.")
    layers: int = field(2, "Layers.", whole(1))
    heads: int = field(1, "Attention heads; `width` is a multiple of them.", whole(1))
    train: TrainConfig = section(training(2500))


@declaration
class GRU4RecConfig(SequenceConfig):
    """GRU4Rec (Hidasi et al. 2016)."""

    module: str = field("gru4rec", "Module of r2rec_jax/baselines that ranks.")
    hidden: int = field(128, "Width of the GRU's state.", whole(1))
    train: TrainConfig = section(training(2000))


@declaration
class CaserConfig(SequenceConfig):
    """Caser (Tang and Wang 2018)."""

    module: str = field("caser", "Module of r2rec_jax/baselines that ranks.")
    width: int = field(50, "Width of the embeddings.", whole(1))
    dropout: float = field(0.5, "Dropout probability.", LESS_THAN_ONE)
    train: TrainConfig = section(training(1500))


@declaration
class GraphConfig(NeuralConfig):
    """A model that propagates embeddings along interactions."""

    width: int = field(64, "Width of the embeddings.", whole(1))
    layers: int = field(3, "Propagation layers.", whole(1))
    liked: bool = field(True, "Whether likes alone are edges.")
    l2: float = field(1e-4, "Weight of the squared embeddings in the loss.", real(0.0))
    optimizer: OptimizerConfig = section(OptimizerConfig(learning_rate=0.03, final_fraction=0.1))


@declaration
class LightGCNConfig(GraphConfig):
    """LightGCN (He et al. 2020)."""

    module: str = field("lightgcn", "Module of r2rec_jax/baselines that ranks.")
    train: TrainConfig = section(graph_training(500))


@declaration
class NGCFConfig(GraphConfig):
    """NGCF (Wang et al. 2019)."""

    module: str = field("ngcf", "Module of r2rec_jax/baselines that ranks.")
    dropout: float = field(0.1, "Dropout probability.", LESS_THAN_ONE)
    train: TrainConfig = section(graph_training(300))


@declaration
class GraphSAGEConfig(GraphConfig):
    """GraphSAGE (Hamilton et al. 2017)."""

    module: str = field("graphsage", "Module of r2rec_jax/baselines that ranks.")
    layers: int = field(2, "Propagation layers.", whole(1))
    dropout: float = field(0.1, "Dropout probability.", LESS_THAN_ONE)
    train: TrainConfig = section(graph_training(400))


_CLOSED_FORM = (RandomOrderConfig, PopularityConfig, ItemKNNConfig, EASEConfig)
_NEURAL = (SASRecConfig, GRU4RecConfig, CaserConfig, GraphSAGEConfig, NGCFConfig, LightGCNConfig)
MODULES = {kind.module: kind for kind in (*_CLOSED_FORM, *_NEURAL)}

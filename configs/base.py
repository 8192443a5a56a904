"""Shared by config files: the sections of every run, and the changes of the small presets."""

from ml_collections import ConfigDict

from configs.declared import Run
from r2rec_jax.rank.config import SystemConfig
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.fields import to_config_dict
from r2rec_jax.teachers.config import ServerConfig

MODEL_TINY = "models/tiny-llama"
MODEL_MINI = "runs/mini/pretrain/model"


def base() -> ConfigDict:
    """The sections of every run: the paper's settings for the 8B, and ours where the paper gives none."""
    return to_config_dict(Run())


def server(model: str = "", **fields) -> ConfigDict:
    """An OpenAI-compatible server; `fields` are changed fields of ServerConfig."""
    return to_config_dict(ServerConfig(model=model, **fields))


def system(adapter: str = "", *, served: ConfigDict | None = None, **fields) -> ConfigDict:
    """One system of an evaluation, for the field `systems` of a config.

    fields: changed fields of SystemConfig, e.g. mode="likelihood" or prompt={"chains": 0}. served: the
    section of a system of kind "server", see `server`.
    """
    c = to_config_dict(SystemConfig(adapter=adapter, **fields))
    if served:
        c.server = served
    return c


def tiny(c: ConfigDict) -> ConfigDict:
    """The bundled data and model: the full pipeline in minutes on two CPU cores."""
    c.data.folder = "runs/quickstart/data"
    c.data.source = "generated"
    c.data.sizes = ConfigDict({"sft": 500, "grpo": 500, "validation": 100, "evaluation": 800})
    c.data.workers = 0  # starting workers would take longer than the work
    c.prompt.update({"wording": "compact", "answer": "titles", "places": 1, "buckets": (160,)})
    c.model.update({"folder": MODEL_TINY, "dtype": "float32", "remat": "none"})
    # The tiny vocabulary has no words for rating questions; launch.annotate writes them on request.
    c.annotate.tasks = ("ranking",)
    c.annotate.max_tokens = 80
    c.annotate.folder = "runs/quickstart/annotate"
    if "reward" in c:
        c.reward.workers = 0  # the rewards take less time than starting workers
    return c


def mini(c: ConfigDict) -> ConfigDict:
    """R2Rec-mini: MovieLens-1M and a model that is trained on it from scratch (configs/pretrain_mini.py).

    Folders are those of the first seed of configs/reproduce.py:ml1m_mini in runs/mini.
    """
    c.data.folder = "runs/mini/seed0/data"
    c.data.sizes = ConfigDict({"sft": 1000, "grpo": 3500, "validation": 300, "evaluation": 1000})
    c.data.workers = 0  # workers would compete with training for the cores
    c.prompt.update({"wording": "mini", "answer": "titles", "places": 1})
    c.prompt.chain_selection = "recent"
    c.prompt.buckets = (96,)
    c.model.update({"folder": MODEL_MINI, "dtype": "float32", "remat": "none"})
    c.annotate.update({"folder": "runs/mini/seed0/annotate", "tasks": ("ranking",), "max_tokens": 80})
    if "reward" in c:
        c.reward.workers = 0
    return c


def preset_of(name: str | None, known: tuple[str, ...]) -> str:
    """The preset after the colon of --config, '' for none. Raises UserError for an unknown preset."""
    if name and name not in known:
        raise UserError(f"unknown preset {name!r}: use one of {', '.join(known)}")
    return name or ""

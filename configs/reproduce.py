"""The road from ratings to a report, every stage from one config.

    python -m launch.reproduce --config=configs/reproduce.py:quickstart --workdir=runs/quickstart

`quickstart`: generated data and the embedded tiny model; minutes on two CPU cores. `figure5`: the same
with as many GRPO steps from the bare model beside it, as in the paper's Figure 5.

    python -m launch.reproduce --config=configs/reproduce.py:ml1m_smoke --config.data.raw=data/ml-1m \
        --workdir=runs/ml1m_smoke

`ml1m_smoke`: real MovieLens-1M through the same tiny model, which has never seen a film title: it shows
that the road carries real data, not that the method works. `ml1m`: the paper's setting on the 8B.

The fields `data`, `prompt`, `model`, `lora`, `mesh` and `seed` hold for every stage; `sft`, `grpo`,
`baselines` and `eval` are the configs of those stages.
"""

from ml_collections import ConfigDict

from configs import baselines, grpo, sft
from configs import eval as evaluation
from configs.base import base, preset_of, tiny
from r2rec_jax.runtime.errors import UserError


def get_config(preset: str | None = None) -> ConfigDict:
    known = ("quickstart", "figure5", "ml1m_smoke", "ml1m")
    if not preset:
        raise UserError(f"configs/reproduce.py needs a preset: one of {', '.join(known)}")
    embedded = preset_of(preset, known) != "ml1m"
    c = tiny(base()) if embedded else base()
    stage_preset = "quickstart" if embedded else None
    c.sft = sft.get_config(stage_preset)
    c.grpo = grpo.get_config(stage_preset)
    c.eval = evaluation.get_config(stage_preset)
    c.baselines = baselines.get_config(stage_preset)
    c.grpo_alone = preset == "figure5"
    if preset == "ml1m_smoke":
        c.data.update({"source": "ml-1m", "raw": "data/ml-1m"})
        c.data.sizes = ConfigDict({"sft": 300, "grpo": 200, "validation": 40, "evaluation": 200})
        # Film titles are many bytes to the tiny vocabulary: fewer chains, numbers for answers.
        c.prompt.update({"answer": "numbers", "chains": 2, "buckets": (640,)})
        c.annotate.max_tokens = 256
        c.sft.train.update({"steps": 60, "batch_size": 16, "response_buckets": (256,)})
        c.grpo.train.update({"steps": 20, "batch_size": 8})
        c.grpo.rollout.max_tokens = 256
        c.eval.rollout.max_tokens = 256
    return c

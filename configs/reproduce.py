"""The full pipeline from ratings to a report, every stage from one config; and the paper's tables.

    python -m launch.reproduce --config=configs/reproduce.py:quickstart --workdir=runs/quickstart

`quickstart`: generated data and the bundled tiny model; about four minutes on two CPU cores. `figure5`: the
same, and beside it as many GRPO steps from the untrained model, as in the paper's Figure 5.

    python -m launch.reproduce --config=configs/reproduce.py:ml1m_mini --workdir=runs/mini

`ml1m_mini`: R2Rec-mini, a small Llama trained from scratch on MovieLens-1M, over three seeds, beside
popularity, item-kNN, EASE^R, SASRec and ablations. Needs data/ml-1m and no weights. On two CPU cores that
reach 205 GFLOP/s in float32 matrix products: pretraining 44 minutes, then for each seed SASRec 6, policies
21 and ablations 7; 2 h 28 min in all. Expect HR@1 .67, SASRec .64, EASE^R .53, and .43 without SFT.
`ml1m_mini_gpu`: the same with a larger model; never run.

`ml1m`: the same on real MovieLens-1M with the 8B, in the paper's setting.

    python -m launch.reproduce --config=configs/reproduce.py:table1 --workdir=runs/tables

`table1` main results, `table2` ablations, `table3` transfer, in the paper's setting on MovieLens-1M;
`table1_book`, `table1_electronics` and so on for its other data sets. Rows with missing weights, keys or
data state what is missing. All tables of a data set share one workdir. `table1_small`, `table2_small`:
MovieLens-1M with the bundled model in the rows of language models, which shows that the code runs, not how
good the methods are. Table 3 evaluates the adapters of `trained`, workdirs of the tables of other data
sets.

The fields `data`, `prompt`, `model`, `lora`, `mesh` and `seed` hold for every stage; `sft`, `grpo`,
`baselines` and `eval` are the configs of those stages. With `tables`, a run is made for each of `seeds`.
"""

from ml_collections import ConfigDict

from configs import baselines, data, grpo, llara, pretrain_mini, sft, tallrec
from configs import eval as evaluation
from configs.base import base, mini, preset_of, system, tiny
from r2rec_jax.runtime.errors import UserError

PIPELINES = ("quickstart", "figure5", "ml1m")
MINI = ("ml1m_mini", "ml1m_mini_gpu")
TABLES = ("table1", "table2", "table3")
# Suffix of a table's name -> preset of configs/data.py; and suffix -> workdir of its tables.
DATA = {"": "ml-1m", "book": "amazon-book", "electronics": "amazon-electronics"}
FOLDERS = {"ml1m": "runs/tables", "book": "runs/tables_book", "electronics": "runs/tables_electronics"}
SMALL = ("table1_small", "table2_small")
COMPARED = ("chatrec", "tallrec", "llara", "gpt-4o-mini", "o4-mini")  # Table 1's other language models


def get_config(preset: str | None = None) -> ConfigDict:
    known = (*PIPELINES, *MINI, *(f"{table}_{name}".rstrip("_") for table in TABLES for name in DATA), *SMALL)
    if not preset:
        raise UserError(f"configs/reproduce.py needs a preset: one of {', '.join(known)}")
    embedded = preset_of(preset, known) in ("quickstart", "figure5", *SMALL)
    c = tiny(base()) if embedded else mini(base()) if preset in MINI else base()
    stage_preset = "quickstart" if embedded else "mini" if preset in MINI else None
    c.sft = sft.get_config(stage_preset)
    c.grpo = grpo.get_config(stage_preset)
    c.eval = evaluation.get_config(stage_preset)
    c.baselines = baselines.get_config(None if preset in SMALL else stage_preset)
    c.tallrec = tallrec.get_config("quickstart" if embedded else None)
    c.llara = llara.get_config("quickstart" if embedded else None)
    compared = evaluation.get_config("compared").systems
    c.compared = ConfigDict({name: compared[name] for name in COMPARED})
    c.grpo_alone = preset == "figure5"
    c.tables, c.seeds, c.policy_seeds = (), (), ()
    c.policy = system("grpo")  # the final policy; `adapter` here and below is the stage that trains it
    c.variants = ConfigDict()  # other systems of a table
    c.studies = ConfigDict()  # name -> changed prompt fields of an SFT-only policy
    c.trained = ConfigDict()  # data set (report/paper_numbers.py) -> workdir of its tables, for Table 3
    if preset in MINI:
        c.pretrain = pretrain_mini.get_config("gpu" if preset.endswith("gpu") else None)
        c.model.dtype = c.pretrain.model.dtype
        c.tables, c.seeds, c.policy_seeds = ("mini",), (0, 1, 2), (0, 1, 2)
        c.policy.mode = "likelihood"
        c.variants["r2rec without rl"] = system("sft", mode="likelihood")
        c.variants["r2rec without sft"] = system("grpo_alone", mode="likelihood")
        c.studies.no_chains = {"chains": 0}
        c.studies.two_chains = {"chains": 2}
        c.studies.no_reasoning = {"reasoning": False}
        c.studies.uniform_chains = {"chain_selection": "uniform"}
        c.studies.candidate_aware_chains = {"chain_selection": "candidate_aware"}
        c.variants["r2rec, no interaction chain"] = system("grpo", mode="likelihood", prompt={"chains": 0})
        without = {"reasoning": False}
        c.variants["r2rec, no reasoning chain"] = system("grpo", mode="likelihood", prompt=without)
        c.variants["r2rec, answers constrained"] = system("grpo", mode="constrained")
        c.variants["r2rec, answers unconstrained"] = system("grpo")
    if preset.startswith("table"):
        name, _, variant = preset.partition("_")
        c.tables = (name,)
        # One policy seed only, because training a policy takes hours.
        c.seeds, c.policy_seeds = (0, 1, 2), (0,)
        if preset in SMALL:
            small(c)
        else:
            source = data.get_config(DATA[variant])
            c.data, c.prompt.wording = source.data, source.prompt.wording
            c.trained.update({name: at for name, at in FOLDERS.items() if name != (variant or "ml1m")})
    return c


def small(c: ConfigDict) -> None:
    """MovieLens-1M with the tiny model, a few steps of each training."""
    c.data.update({"source": "ml-1m", "raw": "data/ml-1m"})
    c.data.sizes = base().data.sizes  # the users and candidates of the 8B's tables
    # Film titles take many tokens in the tiny vocabulary, so fewer chains, and numbers as answers.
    c.prompt.update({"answer": "numbers", "chains": 2, "buckets": (640,)})
    c.annotate.max_tokens = 256
    c.sft.train.update({"steps": 60, "batch_size": 16, "response_buckets": (256,)})
    c.grpo.train.update({"steps": 20, "batch_size": 8})
    c.grpo.rollout.max_tokens = 256
    c.eval.rollout.max_tokens = 256
    c.tallrec.train.update({"steps": 60, "batch_size": 16})
    c.llara.train.update({"steps": 60, "batch_size": 16, "response_buckets": (32, 64)})

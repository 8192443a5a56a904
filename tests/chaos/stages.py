"""The commands as they are killed: small, and most of their time is work that can be interrupted."""

import csv
import sys
from collections.abc import Callable
from pathlib import Path

import jax

from r2rec_jax.data.generate import generate
from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.huggingface import save_params
from r2rec_jax.model.llama import Llama, init_variables
from tests.chaos.harness import Stage

NAMES = ("prepare", "annotate", "convert", "sft", "grpo", "eval", "baselines")
OUT = "out"  # in the folder of a run: the command's workdir or target, so that what it leaves beside is seen
RATERS = 5000  # of the table that is prepared
USERS = {"sft": 700, "grpo": 60, "validation": 8, "evaluation": 60}  # of the data that the other stages read
MODEL = LlamaConfig(8192, 512, 2048, 8, 8, 4, 64, 1e-5, 1e4, None, 512, False)  # to be converted, 80 MB


def environment(workdir: Path) -> dict[str, str]:
    """What all stages run in: the CPU, and a cache of compiled programs that is killed with them."""
    return {
        "JAX_PLATFORMS": "cpu",
        "JAX_COMPILATION_CACHE_DIR": str(workdir / "compiled"),
        # All programs, not only those that take long: a restart is half of a small run.
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }


def stages(workdir: Path) -> dict[str, Stage]:
    """Those of NAMES, and "data", which others need; they read each other's outputs in WORKDIR/whole."""
    inputs = workdir / "inputs"

    def whole(name: str) -> str:
        return str(workdir / "whole" / name / OUT)

    def command(name: str, *flags: str, out: str = "workdir") -> Callable[[Path], list[str]]:
        start = [sys.executable, "-m", f"launch.{name}", *flags]
        return lambda folder: [*start, f"--{out}={folder / OUT}"]

    def config(file: str, **fields) -> list[str]:
        """Flags of a config whose data, traces and adapters are those of `workdir`."""
        named = [f"--config.{name.replace('__', '.')}={value}" for name, value in fields.items()]
        return [f"--config=configs/{file}", *named]

    data = {"data__folder": whole("data"), "data__generated_users": 2 * sum(USERS.values())}
    data |= {f"data__sizes__{group}": size for group, size in USERS.items()}
    rollout = {"rollout__max_tokens": 24, "rollout__chunk": 8}
    made = [
        Stage("data", command("prepare", *config("data.py:generated", **data))),
        Stage(
            "prepare",
            command(
                "prepare",
                *config("data.py:table", data__raw=inputs / "table", data__table__ratings="ratings.csv"),
                *(f"--config.data.sizes.{group}={RATERS // 5}" for group in USERS),
            ),
        ),
        Stage("annotate", command("annotate", *config("data.py:generated", **data)), needs=("data",)),
        Stage(
            "convert",
            command("convert", f"--source={inputs / 'model'}", out="target"),
        ),
        Stage(
            "sft",
            command(
                "train",
                *config("sft.py:quickstart", **data, annotate__folder=whole("annotate")),
                *("--config.train.steps=80", "--config.train.batch_size=4"),
                "--config.train.checkpoint_every=4",
            ),
            needs=("data", "annotate"),
        ),
        Stage(
            "grpo",
            command(
                "train",
                *config("grpo.py:quickstart", **data, **rollout, train__init=whole("sft")),
                *("--config.train.steps=20", "--config.train.batch_size=2", "--config.grpo.group=4"),
                *("--config.train.checkpoint_every=3", "--config.train.evaluate_every=5"),
                # Processes of both kinds, which must not outlive the run.
                *("--config.reward.workers=1", "--config.data.workers=1"),
            ),
            needs=("data", "sft"),
        ),
        Stage(
            "eval",
            command(
                "eval",
                *config("eval.py:quickstart", **data, **rollout),
                *("--config.evaluate.batch_size=2", "--config.evaluate.runs=2"),
                f"--config.systems.sft.adapter={whole('sft')}",
                f'--config.systems["sft+grpo"].adapter={whole("grpo")}',
            ),
            needs=("data", "sft", "grpo"),
        ),
        Stage(
            "baselines",
            command(
                "baselines",
                *config("baselines.py:quickstart", **data, systems="('item_knn', 'lightgcn', 'sasrec')"),
                *("--config.lightgcn.train.steps=40", "--config.sasrec.train.steps=150"),
                *("--config.lightgcn.train.checkpoint_every=8", "--config.sasrec.train.checkpoint_every=15"),
                *("--config.lightgcn.train.evaluate_every=8", "--config.sasrec.train.evaluate_every=30"),
            ),
            needs=("data",),
        ),
    ]
    return {stage.name: stage for stage in made}


def make_table(workdir: Path) -> None:
    """The ratings that "prepare" reads."""
    log, _ = generate(seed=1, users=RATERS)
    table = workdir / "inputs" / "table"
    table.mkdir(parents=True)
    with open(table / "ratings.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("user", "item", "rating", "time"))
        columns = log.user, log.item, log.rating, log.time
        writer.writerows(zip(*(column.tolist() for column in columns), strict=True))


def make_model(workdir: Path) -> None:
    """The model that "convert" reads; its weights are random."""
    params = jax.jit(lambda: init_variables(Llama(MODEL), 0)["params"])()
    save_params(workdir / "inputs" / "model", MODEL, params)

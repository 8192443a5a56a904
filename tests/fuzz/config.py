"""What commands read before they begin: flags, a workdir's config, the stages of a run."""

import json
import sys
from pathlib import Path
from random import Random

from absl import flags
from ml_collections.config_flags import config_flags

from configs import data as data_config
from r2rec_jax.cli import command
from r2rec_jax.runs.finished import STAGES, read_stages
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.workdir import claim
from tests.fuzz.case import Target
from tests.fuzz.mutate import mutate, mutate_json, text_of

ROOT = Path(__file__).parents[2]
CONFIG = f"--config={ROOT}/configs/grpo.py:quickstart"
OVERRIDES = (
    *("seed=3", "train.steps=5", "optimizer.learning_rate=1e-3", "prompt.reasoning=False", "lora.targets=()"),
    *(
        "prompt.buckets=(256, 512)",
        "data.sizes.sft=3",
        "reward.extra=('a:b',)",
        "model.folder=x",
        "mesh.data=1",
    ),
    *("train.best_metric=validation/hr@1", "rollout.stop=(')', '\\n')", "data.table.demographics=('city',)"),
)
RECORD = {"data": {"seconds": 1.5, "done": True}, "sft": {"seconds": 0.0, "done": False}}


class Flags(Target):
    """A command line, its arguments parted by line feeds."""

    def make(self, rng: Random) -> bytes:
        chosen = [f"--config.{one}" for one in rng.sample(OVERRIDES, rng.randrange(4))]
        lines = [CONFIG, "--workdir=w", *chosen, "--overwrite"]
        k = rng.randrange(len(lines))
        lines[k] = mutate(rng, lines[k].encode())
        return b"\n".join(line if isinstance(line, bytes) else line.encode() for line in lines)

    def read(self, data: bytes) -> None:
        argv = ["command", *text_of(data).split("\n")]
        if any(argument.lstrip("-").startswith("flagfile") for argument in argv):
            raise UserError("absl's own flag, for files of flags")
        parsed = fresh_flags()
        before = command.FLAGS, sys.argv
        command.FLAGS, sys.argv = parsed, argv  # ml_collections looks for overrides in the latter
        try:
            command.parse(argv)
            assert parsed.workdir and parsed.config.train.steps >= -(1 << 70)
        finally:
            command.FLAGS, sys.argv = before


def fresh_flags() -> flags.FlagValues:
    """The flags of a command before it has parsed any: parsing defines one for every override."""
    values = flags.FlagValues()
    config_flags.DEFINE_config_file("config", None, "", flag_values=values)
    flags.DEFINE_string("workdir", None, "", flag_values=values)
    flags.DEFINE_bool("overwrite", False, "", flag_values=values)
    return values


class Workdir(Target):
    """config.json of a workdir that somebody comes back to."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._config = data_config.get_config("generated")
        claim(folder, self._config, overwrite=False)
        self._seed = (folder / "config.json").read_bytes()

    def make(self, rng: Random) -> bytes:
        return mutate(rng, self._seed) if rng.randrange(2) else mutate_json(rng, json.loads(self._seed))

    def read(self, data: bytes) -> None:
        (self.folder / "config.json").write_bytes(data)
        assert claim(self.folder, self._config, overwrite=False)
        assert (self.folder / "config.json").read_bytes() == data
        assert sorted(path.name for path in self.folder.iterdir()) == [".lock", "config.json"]


class Stages(Target):
    """stages.json of a run."""

    def make(self, rng: Random) -> bytes:
        return mutate_json(rng, RECORD) if rng.randrange(2) else mutate(rng, json.dumps(RECORD).encode())

    def read(self, data: bytes) -> None:
        (self.folder / STAGES).write_bytes(data)
        for stage in read_stages(self.folder).values():
            assert stage["seconds"] >= 0 and stage["done"] in (True, False)

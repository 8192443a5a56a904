"""From a config's `data` section to a data set: read or generate, then split."""

from ml_collections import ConfigDict

from r2rec_jax.data import movielens
from r2rec_jax.data.generate import generate
from r2rec_jax.data.prepared import Dataset
from r2rec_jax.data.protocol import split
from r2rec_jax.runtime.errors import UserError


def make_dataset(config: ConfigDict) -> Dataset:
    """Reads `config.source` ("generated" or "ml-1m") and applies the protocol.

    Raises:
      UserError: an unknown source, or raw files that are missing or damaged.
    """
    if config.source == "generated":
        log, catalog = generate(seed=config.seed, users=config.generated_users)
    elif config.source == "ml-1m":
        log, catalog = movielens.read_ml1m(config.raw)
    else:
        raise UserError(f"data.source {config.source!r} is unknown: use 'generated' or 'ml-1m'")
    groups = split(log, seed=config.seed, sizes=config.sizes, candidates=config.candidates)
    return Dataset(config.source, log, catalog, groups)

"""Data and teacher traces: for launch.prepare and launch.annotate.

    python -m launch.prepare --config=configs/data.py:ml-1m --workdir=runs/ml1m/data
    python -m launch.annotate --config=configs/data.py:ml-1m --workdir=runs/ml1m/annotate

Presets: `ml-1m` (unpack MovieLens-1M into data/ml-1m first) and `generated` (needs nothing).
"""

from ml_collections import ConfigDict

from configs.base import base, preset_of, tiny


def get_config(preset: str | None = None) -> ConfigDict:
    c = base()
    return tiny(c) if preset_of(preset, ("ml-1m", "generated")) == "generated" else c

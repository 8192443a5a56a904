"""The loading suite: its checkpoint is one, its numbers are those of a process, the peer is the peer."""

import numpy as np
import pytest

from r2rec_jax.bench import load
from r2rec_jax.model.huggingface import abstract_params, load_params
from r2rec_jax.model.shards import SHARD_BYTES


def test_the_checkpoint_is_of_the_size_promised():
    weights = sum(leaf.size for leaf in abstract_params(load.FULL).values()) * 2
    assert 3.9e9 < weights < 4.1e9
    assert weights > SHARD_BYTES  # more than one file


def test_the_checkpoint_loads_and_is_finite(tmp_path):
    load.write_checkpoint(tmp_path, load.QUICK)
    config, params = load_params(tmp_path, np.float32)
    assert config == load.QUICK
    head = np.asarray(params["lm_head"])
    assert np.isfinite(head).all() and 0 < head.max() < 1 and np.unique(head).size > 1000


@pytest.mark.slow
def test_rows(monkeypatch):
    measured = iter(
        [
            {"seconds": 4.0, "before_mb": 10.0, "peak_mb": 90.0},
            {"seconds": 5.0, "before_mb": 10.0, "peak_mb": 80.0},
        ]
    )
    monkeypatch.setattr(load, "run_peer", lambda *_: next(measured))
    rows = load.run("python", quick=True)
    assert [row.peer for row in rows[0:2] + rows[3:5]] == [4.0, 90.0, 5.0, 80.0]
    count = sum(leaf.size for leaf in abstract_params(load.QUICK).values())
    assert rows[2].peer == pytest.approx(80 - count * 2 / 1e6)
    assert rows[5].peer == pytest.approx(70 - count * 4 / 1e6)
    for time, peak, above in (rows[:3], rows[3:]):
        assert (time.unit, peak.unit, above.unit) == ("s", "MB", "MB")
        # A process with JAX and the weights in it, measured anew and not as a child of this one.
        assert 0 < time.ours < 60 and 50 < peak.ours < 1000 and above.ours < 100

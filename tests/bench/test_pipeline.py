"""The pipeline suite: the need is the roofline's, and every row is of this data and this many workers."""

import pytest

from configs import grpo, sft
from r2rec_jax.bench import pipeline
from r2rec_jax.model.flops import Shapes, update_flops
from r2rec_jax.performance import programs
from r2rec_jax.runtime.devices import DEVICES


def test_the_need_is_that_of_the_roofline():
    config, steps = sft.get_config(), [Shapes(16, 1, 1088, 256), Shapes(16, 1, 512, 112)]
    architecture = programs.architecture(config)
    flops = [update_flops(architecture, step, frozen=True, reference=False) for step in steps]
    flops_a_second = DEVICES["H200-141G"].flops  # these steps are compute-bound
    one = 16 / (flops[0] / flops_a_second)
    assert pipeline.needed(config, steps[:1]) == pytest.approx(one)
    # Of several steps: all of their prompts in all of their time.
    assert pipeline.needed(config, steps) == pytest.approx(32 / (sum(flops) / flops_a_second))
    assert pipeline.needed(config, steps) > one


def test_a_rollout_adds_to_the_time_of_its_step():
    config = grpo.get_config()
    step = Shapes(8, config.grpo.group, 1088, 256)
    flops = update_flops(programs.architecture(config), step, frozen=True, reference=True)
    update = flops / DEVICES["H200-141G"].flops
    weights = 16e9 / DEVICES["H200-141G"].bandwidth  # that each decoded token reads at least
    assert 0.5 * 8 / (update + 256 * weights) < pipeline.needed(config, [step]) < 8 / (update + 256 * weights)


@pytest.mark.slow
def test_rows():
    rows = pipeline.run(None, quick=True)
    assert [row.name.split(", ")[0] for row in rows] == [
        f"{what} of generated data by {who}"
        for what in ("SFT batches", "ranking prompts")
        for who in ("threads", "1 worker", "2 workers")
    ]
    for row in rows:
        assert (row.unit, row.target) == ("examples/s", 1)
        assert row.ratio == pytest.approx(row.ours / row.peer) and row.met == (row.ratio >= 1)
    assert len({row.peer for row in rows[:3]}) == len({row.peer for row in rows[3:]}) == 1

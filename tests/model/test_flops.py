"""FLOPs against XLA's count of the compiled step and sums by hand; the roofline's closed form."""

import dataclasses

import jax
import pytest

from configs import sft as sft_config
from r2rec_jax.model.architecture import LlamaConfig
from r2rec_jax.model.flops import (
    Shapes,
    attention_flops,
    forward_flops,
    layer_parameters,
    roofline,
    tokens,
    update_flops,
)
from r2rec_jax.performance import programs
from r2rec_jax.runtime.devices import DEVICES, parse_devices
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh

WIDE = {
    "vocab_size": 512,
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
}


def test_flops_of_a_step_are_xlas(monkeypatch):
    """One layer, one block of queries, one chunk of the head: XLA counts a loop's body once. The completions
    are their prompts' only tokens, so that no pass over prompts is cut short."""
    monkeypatch.setitem(programs.PUBLISHED, "wide", WIDE)
    config = sft_config.get_config()
    config.model.update({"folder": "absent/wide", "dtype": "float32", "remat": "none"})
    config.lora.rank = 1
    shapes = Shapes(B=2, G=1, P=1, R=128)
    policy = programs.abstract_policy(config, make_mesh(data=1))
    compiled = programs.update(config, policy, make_mesh(data=1), shapes).compile()
    c = policy.model.config
    expected = update_flops(c, shapes, frozen=True, reference=False)
    # The first layer's input needs no gradient, and dense attention computes the hidden half too, its scores
    # a second time in the backward pass.
    D, QKV = c.hidden_size, (c.num_attention_heads + 2 * c.num_key_value_heads) * c.head_dim
    extra = -2 * shapes.R * shapes.B * D * QKV
    attention = attention_flops(c, shapes)
    extra += 2 * 3.5 * attention - 3 * attention
    assert compiled.cost_analysis()["flops"] == pytest.approx(expected + extra, rel=0.05)


def test_flops_add_up_by_hand():
    c = LlamaConfig(50, 10, 20, 3, 2, 1, 5, 1e-5, 1e4, None, 64, False)
    assert layer_parameters(c) == 3 * (10 * (10 + 5 + 5 + 10) + 3 * 10 * 20)
    shapes = Shapes(B=2, G=4, P=6, R=3)
    assert tokens(shapes) == 2 * 6 + 8 * 3
    # Pairs of query and key, half of those among own tokens, 4 H A operations each.
    pairs = 2 * 6 * 6 / 2 + 8 * (3 * 3 / 2 + 3 * 6)
    assert attention_flops(c, shapes) == 3 * 4 * 10 * pairs
    linear = 2 * (layer_parameters(c) * 36 + 10 * 50 * 24)
    attention = attention_flops(c, shapes)
    assert forward_flops(c, shapes) == linear + attention
    assert update_flops(c, shapes, frozen=True, reference=False) == 2 * linear + 3 * attention
    assert update_flops(c, shapes, frozen=False, reference=True) == 4 * linear + 4 * attention
    # Pretraining's prompt of one token is the completion's first input, not a pass.
    assert tokens(dataclasses.replace(shapes, P=1)) == 24


def test_roofline():
    a100 = DEVICES["A100-80G"]
    time = roofline(a100, flops=624e12, traffic=2039e9, wire=150e9)
    assert (time.compute, time.memory, time.links) == (2.0, 1.0, 0.5)
    assert (time.seconds, time.bound) == (2.5, "compute")
    # Ridge of the A100: 153 operations a byte.
    assert roofline(a100, flops=152, traffic=1, wire=0).bound == "memory"
    assert roofline(a100, flops=154, traffic=1, wire=0).bound == "compute"


def test_devices():
    assert parse_devices("2xA100-80G") == (2, "A100-80G")
    assert parse_devices("H200-141G") == (1, "H200-141G")
    for wrong in ("2xB900", "0xA100-80G", "A100", "x", "", "2 A100-80G"):
        with pytest.raises(UserError, match="A100-40G, A100-80G, H100-80G, H200-141G"):
            parse_devices(wrong)


def test_nothing_is_allocated():
    assert all(array.nbytes < 1e8 for array in jax.live_arrays())

"""Names as JAX writes them, by hand; and of a program whose scopes are known."""

import re

import jax
import jax.numpy as jnp
import pytest

from r2rec_jax.performance.scopes import scope_of


@pytest.mark.parametrize(
    ("op_name", "scope", "direction"),
    [
        ("jit(step)/optimizer/mul", "optimizer", "forward"),
        ("jit(step)/add", "(no scope)", "forward"),
        ("", "(no scope)", "forward"),
        ("weights['params']['norm']", "(no scope)", "forward"),
        (
            "jit(step)/loss/jvp(prefill)/Llama/while/body/eval_jaxpr/layers/mlp/mlp/up_proj/up_proj._base/dot_general",
            "loss/prefill/mlp/up_proj",
            "forward",
        ),
        ("jit(step)/loss/transpose(jvp(prefill))/Llama/while/body/mul", "loss/prefill", "backward"),
        (
            "jit(step)/loss/transpose(jvp(prefill))/Llama/while/body/checkpoint/rematted_computation/mlp/mul",
            "loss/prefill/mlp",
            "recomputed",
        ),
        (
            "jit(f)/while/body/decode/Llama/layer_3/attention/bkqs,bksa->bkqa/dot_general",
            "decode/attention",
            "forward",
        ),
        ("jit(f)/decode/attention/squeeze;jit(f)/sample/add", "decode/attention", "forward"),
        ("jit(f)/sample/vmap(jit(_uniform))/vmap()/Engine._next/while/body/xor", "sample", "forward"),
    ],
)
def test_a_name_by_hand(op_name, scope, direction):
    assert scope_of(op_name) == (tuple(scope.split("/")), direction)


def test_scopes_of_a_compiled_gradient():
    def loss(x, w):
        with jax.named_scope("outer"), jax.named_scope("inner"):
            y = jax.checkpoint(lambda x: jnp.sin(x @ w))(x)
        return y.sum()

    x = jnp.ones((8, 8))
    text = jax.jit(jax.grad(loss)).lower(x, x).compile().as_text()
    names = re.findall(r'op_name="([^"]*)"', text)
    assert {scope_of(name) for name in names if "dot_general" in name} == {
        (("outer", "inner"), "recomputed"),
        (("outer", "inner"), "backward"),
    }

"""FLOPs and bytes of operations by hand, on HLO as GPUs have it, and against XLA's own count."""

import jax
import jax.numpy as jnp
import pytest

from r2rec_jax.performance.hlo_operations import operations, summary

# What XLA writes for a GPU: a product as a library call with its workspace, a fusion that reads a slice and
# another that updates in place, attention by cuDNN.
GPU = """HloModule jit_step

%fused_slice (p0: bf16[8,64,32], p1: s32[]) -> f32[64,32] {
  %p0 = bf16[8,64,32]{2,1,0} parameter(0)
  %p1 = s32[] parameter(1)
  %zero = s32[] constant(0)
  %slice = bf16[1,64,32]{2,1,0} dynamic-slice(%p0, %p1, %zero, %zero), dynamic_slice_sizes={1,64,32}
  %flat = bf16[64,32]{1,0} bitcast(%slice)
  ROOT %wide = f32[64,32]{1,0} convert(%flat), metadata={op_name="jit(step)/optimizer/convert"}
}

%fused_update (q0: f32[8,100], q1: f32[1,100]) -> f32[8,100] {
  %q0 = f32[8,100]{1,0} parameter(0)
  %q1 = f32[1,100]{1,0} parameter(1)
  %at = s32[] constant(3)
  ROOT %put = f32[8,100]{1,0} dynamic-update-slice(%q0, %q1, %at, %at)
}

ENTRY %main (a: bf16[16,64], b: bf16[64,32]) -> f32[16,32] {
  %a = bf16[16,64]{1,0} parameter(0)
  %b = bf16[64,32]{1,0} parameter(1)
  %stack = bf16[8,64,32]{2,1,0} parameter(2)
  %index = s32[] parameter(3)
  %old = f32[8,100]{1,0} parameter(4)
  %new = f32[1,100]{1,0} parameter(5)
  %gemm = (f32[16,32]{1,0}, s8[4096]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm", \
metadata={op_name="jit(step)/loss/transpose(jvp(mlp))/dot_general"}, backend_config={"gemm_backend_config":\
{"dot_dimension_numbers":{"lhs_contracting_dimensions":["1"],"rhs_contracting_dimensions":["0"]}}}
  %fusion.1 = f32[64,32]{1,0} fusion(%stack, %index), kind=kLoop, calls=%fused_slice
  %fusion.2 = f32[8,100]{1,0} fusion(%old, %new), kind=kLoop, calls=%fused_update
  %flash = (bf16[16,64]{1,0}, u8[0]{0}) custom-call(%a, %a, %a), custom_call_target="__cudnn$fmhaSoftmax"
  %copy.1 = f32[8,100]{0,1} copy(%fusion.2)
}
"""


def test_a_gpus_program_by_hand():
    found = operations(GPU)
    assert set(found) == {"gemm", "fusion.1", "fusion.2", "flash", "copy.1"}
    gemm = found["gemm"]
    assert (gemm.scope, gemm.direction, gemm.flops) == (("loss", "mlp"), "backward", 2 * 16 * 32 * 64)
    slicing = found["fusion.1"]
    assert (slicing.scope, slicing.flops) == (("optimizer",), 0)
    assert slicing.bytes == 64 * 32 * 2 + 4 + 64 * 32 * 4  # the slice, the index, the result
    assert found["fusion.2"].bytes == 2 * 100 * 4  # the row that is put, twice
    assert found["fusion.2"].scope == ("(no scope) fusion",)
    assert not found["flash"].known and found["flash"].flops == 0
    assert gemm.known and found["copy.1"].bytes == 2 * 8 * 100 * 4


def test_the_summary_counts():
    assert summary(GPU) == {
        "operations": 5,
        "fusions": 2,
        "library calls": 2,
        "copies": 1,
        "bytes of copies": 8 * 100 * 4,
    }


def compiled(function, *arguments):
    return jax.jit(function).lower(*arguments).compile()


def test_flops_are_xlas_where_there_is_no_loop():
    def products(a, b, c):
        return jnp.einsum("nij,njk->nik", a, b), jnp.tanh(a[0] @ c)

    program = compiled(products, jnp.ones((3, 40, 50)), jnp.ones((3, 50, 60)), jnp.ones((50, 70)))
    total = sum(one.flops for one in operations(program.as_text()).values())
    assert total == 2 * 3 * 40 * 50 * 60 + 2 * 40 * 50 * 70
    # XLA also counts the tanh, which is next to nothing.
    assert total == pytest.approx(program.cost_analysis()["flops"], rel=0.02)


def test_a_pass_over_an_array_reads_and_writes_it():
    program = compiled(jnp.negative, jnp.ones((1000,)))
    (one,) = operations(program.as_text()).values()
    assert one.bytes == 8000 == program.cost_analysis()["bytes accessed"]


def test_a_loops_operations_stand_by_themselves():
    def body(c, _):
        with jax.named_scope("inside"):
            return jnp.sin(c @ c), None

    text = compiled(lambda c: jax.lax.scan(body, c, length=9)[0], jnp.ones((32, 32))).as_text()
    found = operations(text)
    (loop,) = (one for one in found.values() if one.kind == "while")
    assert (loop.flops, loop.bytes) == (0, 0)
    assert [one.scope for one in found.values() if one.flops == 2 * 32**3] == [("inside",)]


def test_a_cache_is_updated_in_place():
    cache, row = jnp.zeros((512, 64)), jnp.ones((1, 64))

    def write(cache, row, at):
        return jax.lax.dynamic_update_slice(cache, row, (at, 0))

    text = jax.jit(write, donate_argnums=0).lower(cache, row, 3).compile().as_text()
    total = sum(one.bytes for one in operations(text).values() if one.kind != "copy")
    assert total < 4 * 64 * 4  # and not the 131,072 bytes of the cache

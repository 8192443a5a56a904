"""Collectives read from HLO text: written by hand, and from programs whose traffic is known."""

import pytest

from r2rec_jax.performance.hlo_collectives import collectives, total_wire_bytes

PROGRAM = """HloModule jit_step, entry_computation_layout={(f32[8]{0})->f32[8]{0}}

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %add = f32[] add(%a, %b)
}

%inner (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %g = bf16[4,6]{1,0} all-gather(%w), channel_id=1, replica_groups=[4,2]<=[8], dimensions={0}
}

%outer (p: (s32[], f32[8])) -> (s32[], f32[8]) {
  %r = (f32[8]{0}, f32[2,3]{1,0}) all-reduce(%x, %y), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%sum, \
metadata={op_name="jit(step)/grad"}
  %w = (s32[], f32[8]) while(%t), condition=%c, body=%inner, backend_config={"known_trip_count":{"n":"5"}}
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %s = f32[] all-reduce(%l), replica_groups=mesh['data'=4,'tensor'=2] {'data'}, to_apply=%sum
  %p = f32[10]{0} collective-permute(%x), source_target_pairs={{0,1},{1,0}}
  %v = f32[2]{0} reduce-scatter(%x), replica_groups=mesh['data'=8], to_apply=%sum
  %w = (s32[], f32[8]) while(%t), condition=%c, body=%outer, backend_config={"known_trip_count":{"n":"3"}}
}
"""


def test_loops_groups_and_shapes():
    found = {one.kind + str(one.loop): one for one in collectives(PROGRAM)}
    assert {name: (one.devices, one.bytes, one.times) for name, one in found.items()} == {
        "all-reduce()": (4, 4, 1),
        "collective-permute()": (2, 40, 1),
        "reduce-scatter()": (8, 8, 1),
        "all-reduce(3,)": (4, 56, 3),
        "all-gather(3, 5)": (2, 48, 15),
    }
    inside = found["all-reduce(3,)"]
    assert inside.shapes == ((8,), (2, 3))
    assert (inside.computation, inside.source) == ("outer", "jit(step)/grad")


def test_wire_bytes_of_ring_algorithms():
    assert total_wire_bytes(PROGRAM) == pytest.approx(
        {
            "all-reduce": 2 * 3 / 4 * (4 + 3 * 56),
            "collective-permute": 40,
            "reduce-scatter": 7 * 8,
            "all-gather": 1 / 2 * 48 * 15,
        }
    )


def test_what_cannot_be_counted_is_refused():
    with pytest.raises(ValueError, match="unknown trip count"):
        collectives(PROGRAM.replace('"known_trip_count":{"n":"5"}', ""))
    with pytest.raises(ValueError, match="no group size"):
        collectives(PROGRAM.replace("replica_groups={{0,1,2,3},{4,5,6,7}}, ", ""))

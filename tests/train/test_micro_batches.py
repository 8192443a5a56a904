"""A batch in parts against the batch whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.mesh import make_mesh
from r2rec_jax.train.micro_batches import check_parts, mapped, summed

B, G = 12, 3
BATCH = {
    "prompt": np.arange(B * 2).reshape(B, 2),
    "completion": np.arange(B * G * 4, dtype=np.float32).reshape(B * G, 4),
}


@pytest.mark.parametrize("parts", [1, 2, 3, 12])
def test_every_prompt_keeps_its_rows_and_is_in_one_part(parts):
    seen = []

    def compute(part, index):
        prompts, rows = part["prompt"], part["completion"].reshape(-1, G, 4)
        belongs = prompts[:, 0] // 2 == rows[:, 0, 0] // (4 * G)
        jax.debug.callback(lambda ids, k: seen.append((int(k), ids.tolist())), prompts[:, 0] // 2, index)
        return {"belongs": belongs.sum(), "total": rows.sum(), "prompts": jnp.int32(len(prompts))}

    out = jax.jit(lambda batch: summed(compute, batch, parts))(BATCH)
    jax.effects_barrier()
    assert out["belongs"] == out["prompts"] == B
    np.testing.assert_allclose(out["total"], BATCH["completion"].sum())
    assert sorted(k for k, _ in seen) == list(range(parts))
    assert sorted(i for _, ids in seen for i in ids) == list(range(B))
    assert all(i % parts == k for k, ids in seen for i in ids)


@pytest.mark.parametrize("parts", [1, 2, 4])
def test_mapped_rows_come_back_in_order(parts):
    def compute(part):
        return jnp.repeat(part["prompt"][:, 1], G)[:, None] * 1000 + part["completion"]

    out = jax.jit(lambda batch: mapped(compute, batch, parts))(BATCH)
    np.testing.assert_array_equal(out, compute(BATCH))


@pytest.mark.parametrize("parts", [0, 4])
def test_a_batch_that_does_not_divide_is_refused(parts):
    check_parts(6, 3, make_mesh(data=1))
    with pytest.raises(UserError, match=rf"train.batch_size 6 .* train.micro_batches {parts}"):
        check_parts(6, parts, make_mesh(data=1))

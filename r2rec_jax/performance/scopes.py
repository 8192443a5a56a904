"""The source's named scopes in the names that JAX gives operations."""

import re

# What JAX and flax put between the scopes: loops, recomputation, calls of calls, an einsum's formula.
_BETWEEN = re.compile(
    r"while|body|cond|branch_\d+_fun|eval_jaxpr|closed_call|checkpoint|rematted_computation|remat\d*|"
    r"custom_[jv][vj]p_call.*|shard_map|jit\(.*\)|vmap\(.*\)|Llama|layers|layer_\d+|\w+\.[\w.]+|.*->.*"
)
_WRAPPED = re.compile(r"(?:jvp|transpose|vmap|checkpoint|remat)\((.*)\)")

NO_SCOPE = "(no scope)"


def scope_of(op_name: str) -> tuple[tuple[str, ...], str]:
    """(("loss", "prefill", "mlp"), "backward") of
    "jit(step)/loss/transpose(jvp(prefill))/Llama/while/body/layers/mlp/dot_general".

    The second is "forward", "backward", or "recomputed" for what a backward pass computes again. Layers are
    not told apart. An operation of no scope, such as a copy that XLA added, has ("(no scope)",).
    """
    # XLA joins the names of operations that it merges by semicolons.
    *outer, _ = op_name.split(";")[0].split("/")
    names, backward, recomputed = [], False, "rematted_computation" in outer
    for part in outer:
        while match := _WRAPPED.fullmatch(part):
            backward |= part.startswith("transpose(")
            part = match[1]
        half = len(names) // 2
        if part == "checkpoint" and names[:half] == names[half:]:  # a backward pass names its way there twice
            names = names[:half]
        if part and not _BETWEEN.fullmatch(part) and part not in names[-1:]:
            names.append(part)
    direction = "recomputed" if recomputed else "backward" if backward else "forward"
    return tuple(names) or (NO_SCOPE,), direction

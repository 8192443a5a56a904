"""Extracts the source's named scopes from the op names that JAX writes into HLO."""

import re

# Parts of an op name that are no scope: loops, recomputation, nested calls, einsum formulas, modules.
_BETWEEN = re.compile(
    r"while|body|cond|branch_\d+_fun|eval_jaxpr|closed_call|checkpoint|rematted_computation|remat\d*|"
    r"custom_[jv][vj]p_call.*|shard_map|jit\(.*\)|vmap\(.*\)|Llama|layers|layer_\d+|\w+\.[\w.]+|.*->.*"
)
_WRAPPED = re.compile(r"(?:jvp|transpose|vmap|checkpoint|remat)\((.*)\)")

NO_SCOPE = "(no scope)"


def scope_of(op_name: str) -> tuple[tuple[str, ...], str]:
    """(scopes, direction) of an op name.

    "jit(step)/loss/transpose(jvp(prefill))/Llama/while/body/layers/mlp/dot_general" gives
    (("loss", "prefill", "mlp"), "backward").

    The direction is "forward", "backward", or "recomputed" for a recomputation inside the backward pass. All
    layers share their scopes. An operation without a scope, such as a copy that XLA added, gives
    ("(no scope)",).
    """
    # XLA joins the names of merged operations with semicolons.
    *outer, _ = op_name.split(";")[0].split("/")
    names, backward, recomputed = [], False, "rematted_computation" in outer
    for part in outer:
        while match := _WRAPPED.fullmatch(part):
            backward |= part.startswith("transpose(")
            part = match[1]
        half = len(names) // 2
        if (
            part == "checkpoint" and names[:half] == names[half:]
        ):  # the backward pass of a checkpoint repeats the outer scopes
            names = names[:half]
        if part and not _BETWEEN.fullmatch(part) and part not in names[-1:]:
            names.append(part)
    direction = "recomputed" if recomputed else "backward" if backward else "forward"
    return tuple(names) or (NO_SCOPE,), direction

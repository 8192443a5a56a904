"""Formats a plan as text."""

from r2rec_jax.runtime.text_table import text_table

GB = 1e9
NOTE = """\
Estimated: closed forms for a GPU; they decide whether the run fits and the largest batch. Compiled: the
same programs compiled by XLA for CPU, which computes bfloat16 in float32 and keeps blocks of attention
scores in memory. Sent: bytes that a device sends over its links; decode is one chunk of tokens."""


def render(plan: dict) -> str:
    """The text that launch.plan prints for a plan from `make_plan`."""
    shapes = plan["shapes"]
    mesh = " ".join(f"{axis}={size}" for axis, size in plan["mesh"].items())
    of_step = f"{shapes['B']} prompts of {shapes['P']} tokens"
    of_step += f", {shapes['G']} completions each of {shapes['R']}" if shapes["G"] > 1 else ""
    of_step += f", completions of {shapes['R']}" if shapes["G"] == 1 else ""
    of_step += f", in {shapes['parts']} micro-batches" if shapes["parts"] > 1 else ""
    head = [
        f"{plan['stage']} of {plan['model']}",
        f"{plan['devices']} x {plan['device']}, mesh {mesh}",
        f"step: {of_step}",
    ]
    counts = [
        ("parameters", f"{plan['parameters']['model']:,}", ""),
        ("trainable", f"{plan['parameters']['trainable']:,}", ""),
        ("FLOPs a token, update", f"{plan['flops']['update_a_token'] / 1e9:.2f}", "G"),
        ("FLOPs a token, forward", f"{plan['flops']['forward_a_token'] / 1e9:.2f}", "G"),
        ("FLOPs of one update", f"{plan['flops']['update'] / 1e12:.1f}", "T"),
    ]
    parts = ["\n".join(head), text_table(counts, align="lrl")]
    return "\n\n".join([*parts, _memory(plan), _compiled(plan), _roofline(plan), NOTE])


def _memory(plan: dict) -> str:
    memory = plan["bytes_a_device"]
    names = {
        "base": "base",
        "adapter": "adapter" if memory["base"] else "parameters",
        "optimizer": "optimiser",
        "reference": "reference adapter",
        "gradients": "gradients",
        "activations": "activations of the update",
        "decoder": "the rollout's copy of the weights",
        "kv_cache": "KV cache of the rollout",
        "prefill": "activations of the prefill",
    }
    rows = [(text, _gb(memory[key]), "GB") for key, text in names.items() if memory[key]]
    rows.append(("peak in the update", _gb(memory["update_peak"]), "GB"))
    if memory["rollout_peak"]:
        rows.append(("peak in the rollout", _gb(memory["rollout_peak"]), "GB"))
    rows.append(("fits" if plan["fits"] else "DOES NOT FIT", _gb(plan["device_memory"]), "GB usable"))
    most = plan["largest_batch_size"]
    rows.append(("largest train.batch_size", most, "" if most else "(none: split the model)"))
    return text_table(rows, align="lrl", title="memory of one device, estimated")


def _compiled(plan: dict) -> str:
    rows = []
    for name, program in plan["compiled"].items():
        sent = ", ".join(f"{kind} {size / 1e6:,.1f} MB" for kind, size in program["wire"].items())
        held = (f"{_gb(program[key])} GB" for key in ("arguments", "temporary"))
        rows.append((name.replace("_", " "), *held, sent or "nothing"))
    columns = ("compiled by XLA for CPU, a device", "arguments", "temporary", "sent by kind")
    return text_table(rows, columns, align="lrrl")


def _roofline(plan: dict) -> str:
    keys = ("compute", "memory", "links", "seconds")
    rows = [
        (name, *(f"{time[key]:.3f}" for key in keys), f"{time['bound']}-bound")
        for name, time in plan["roofline"].items()
    ]
    columns = ("roofline, seconds a step", "compute", "memory", "links", "at best", "")
    return text_table(rows, columns, align="lrrrrl")


def _gb(size: float) -> str:
    return f"{size / GB:.2f}"

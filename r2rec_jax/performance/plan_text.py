"""A plan as text."""

GB = 1e9


def render(plan: dict) -> str:
    """The page that launch.plan prints of a plan from `make_plan`."""
    shapes, memory = plan["shapes"], plan["bytes_a_device"]
    mesh = " ".join(f"{axis}={size}" for axis, size in plan["mesh"].items())
    of_step = f"{shapes['B']} prompts of {shapes['P']} tokens"
    of_step += f", {shapes['G']} completions each of {shapes['R']}" if shapes["G"] > 1 else ""
    of_step += f", completions of {shapes['R']}" if shapes["G"] == 1 else ""
    of_step += f", in {shapes['parts']} micro-batches" if shapes["parts"] > 1 else ""
    model, trainable = plan["parameters"]["model"], plan["parameters"]["trainable"]
    lines = [
        f"{plan['stage']} of {plan['model']}",
        f"{plan['devices']} x {plan['device']}, mesh {mesh}",
        f"step: {of_step}",
        "",
        f"{'parameters':<34}{model:>18,}",
        f"{'trainable':<34}{trainable:>18,}",
        f"{'FLOPs a token, update':<34}{plan['flops']['update_a_token'] / 1e9:>15.2f} G",
        f"{'FLOPs a token, forward':<34}{plan['flops']['forward_a_token'] / 1e9:>15.2f} G",
        f"{'FLOPs of one update':<34}{plan['flops']['update'] / 1e12:>15.1f} T",
        "",
        "memory of one device, estimated",
    ]
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
    lines += [f"  {text:<32}{memory[key] / GB:>15.2f} GB" for key, text in names.items() if memory[key]]
    lines.append(f"  {'peak in the update':<32}{memory['update_peak'] / GB:>15.2f} GB")
    if memory["rollout_peak"]:
        lines.append(f"  {'peak in the rollout':<32}{memory['rollout_peak'] / GB:>15.2f} GB")
    verdict = "fits" if plan["fits"] else "DOES NOT FIT"
    lines.append(f"  {verdict:<32}{plan['device_memory'] / GB:>15.2f} GB usable")
    most = plan["largest_batch_size"]
    lines.append(
        f"  {'largest train.batch_size':<32}{most:>15}" + ("" if most else "  (none: split the model)")
    )
    lines += [
        "",
        f"{'compiled by XLA for CPU, a device':<34}{'arguments':>12}{'temporary':>12}  sent by kind",
    ]
    for name, program in plan["compiled"].items():
        sent = (
            ", ".join(f"{kind} {size / 1e6:,.1f} MB" for kind, size in program["wire"].items()) or "nothing"
        )
        text = f"  {name.replace('_', ' '):<32}"
        text += f"{program['arguments'] / GB:>9.2f} GB{program['temporary'] / GB:>9.2f} GB"
        lines.append(f"{text}  {sent}")
    lines += ["", f"{'roofline, seconds a step':<34}{'compute':>9}{'memory':>9}{'links':>9}{'at best':>9}"]
    for name, time in plan["roofline"].items():
        values = "".join(f"{time[key]:>9.3f}" for key in ("compute", "memory", "links", "seconds"))
        lines.append(f"  {name:<32}{values}  {time['bound']}-bound")
    lines += [
        "",
        "Estimated: closed forms of the code for a GPU; what decides fits and batch size. Compiled: the same",
        "programs as XLA plans them for CPU, where bfloat16 is computed in float32 and attention holds",
        "blocks of scores. Sent: bytes a device puts on its links, a decode being one chunk of tokens.",
    ]
    return "\n".join(lines)

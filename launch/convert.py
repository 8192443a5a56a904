"""Converts model folders between Hugging Face and orbax, and writes a run's adapter for PEFT.

    python -m launch.convert --source=models/DeepSeek-R1-Distill-Llama-8B --target=models/8b-orbax
    python -m launch.convert --source=models/8b-orbax --target=models/8b-hf
    python -m launch.convert --adapter=runs/ml1m/sft --target=adapters/sft
    python -m launch.convert --adapter=runs/ml1m/grpo --checkpoint=best --target=adapters/grpo
    python -m launch.convert --adapter=runs/ml1m/sft --merge --target=models/8b-sft

The source's form decides the direction. `model.folder` of a config accepts either form, `lora.folder` a
PEFT folder. `--adapter` is the workdir of a training run; with `--merge` its base model is written in
Hugging Face's form with the adapter in the weights. One parameter is in memory at a time, and the target
appears when it is complete. If the result of the same command is there, the command ends with code 0.
"""

import json
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from r2rec_jax.cli import command
from r2rec_jax.model.casts import cast
from r2rec_jax.model.huggingface import Leaf, abstract_params, hf_name, hf_tensors
from r2rec_jax.model.lora import merge
from r2rec_jax.model.peft import save_adapter
from r2rec_jax.model.shards import INDEX, write_tensors
from r2rec_jax.model.weights import is_orbax, read_weights, save_orbax
from r2rec_jax.runtime import build_stamp
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.paths import new_folder
from r2rec_jax.train.export import restore_adapter
from r2rec_jax.train.state import WHICH

FLAGS = flags.FLAGS
flags.DEFINE_string("source", None, "model folder to read, Hugging Face or orbax")
flags.DEFINE_string("adapter", None, "workdir of SFT or GRPO, whose adapter is written for PEFT")
flags.DEFINE_bool("merge", False, "write --adapter's base model with the adapter in its weights")
flags.DEFINE_enum("checkpoint", "latest", WHICH, "checkpoint of --adapter's run")
flags.DEFINE_string("target", None, "folder to write, in the other form")
flags.DEFINE_enum("dtype", "bfloat16", ["bfloat16", "float16", "float32"], "dtype of the written weights")

# Suffixes of companion files: config, tokenizer, chat template, model card, licence.
COMPANIONS = (".json", ".jinja", ".txt", ".model", ".md", "")


def main(arguments: list[str]) -> None:
    if arguments:
        raise UserError(f"unexpected argument {arguments[0]!r}: flags are written --name=value")
    if not FLAGS.target:
        raise UserError("--target is missing: name the folder to write")
    if bool(FLAGS.source) == bool(FLAGS.adapter):
        raise UserError("name one of --source, a model folder, and --adapter, the workdir of a training run")
    if FLAGS.merge and not FLAGS.adapter:
        raise UserError("--merge needs --adapter: name the workdir of a training run")
    # CPU only, because a training run may occupy the accelerator's memory.
    jax.config.update("jax_platforms", "cpu")
    target = Path(FLAGS.target)
    if FLAGS.adapter:
        export(Path(FLAGS.adapter), target, FLAGS.merge, FLAGS.dtype, FLAGS.overwrite, which=FLAGS.checkpoint)
    else:
        convert(Path(FLAGS.source), target, FLAGS.dtype, FLAGS.overwrite)


def convert(source: Path, target: Path, dtype: str, overwrite: bool) -> None:
    """Writes `target` from `source` in the other form, weights in `dtype`, companion files as they are.

    Raises:
      UserError: the source is incomplete or has values outside the range of `dtype`, or the target exists and
        `overwrite` is false.
    """
    if source.resolve() == target.resolve():
        raise UserError(f"--source and --target are both {source}: name another --target")
    made_from = build_stamp.digest({"dtype": dtype}, source)
    to_hf = is_orbax(source)
    # float16 is converted from float32, to count weights outside its range.
    config, leaves = read_weights(source, np.float32 if dtype == "float16" else np.dtype(dtype))
    if _is_there(target, made_from, overwrite):
        return
    zeros = Counter()
    with new_folder(target, overwrite) as temporary:
        _copy_companions(source, temporary, dtype)
        leaves = _progress(_narrow(leaves, dtype, zeros), abstract_params(config), dtype)
        if to_hf:
            write_tensors(temporary, hf_tensors(leaves, dtype))
        else:
            save_orbax(temporary, leaves)
        build_stamp.record(temporary, made_from)
    print(f"{target}: {'Hugging Face safetensors' if to_hf else 'orbax'}, {dtype}{_zeros_text(zeros)}")


def export(
    workdir: Path, target: Path, merged: bool, dtype: str, overwrite: bool, which: str = "latest"
) -> None:
    """Writes the adapter of a training run as a float32 PEFT folder, or merged into its base in `dtype`.

    Raises:
      UserError: no adapter in the workdir, no base model, or the target exists and `overwrite` is false.
    """
    base, lora, adapter = restore_adapter(workdir, which)
    settings = {"checkpoint": which, "base": base} | ({"dtype": dtype} if merged else {})
    made_from = build_stamp.digest(settings, workdir, *([base] if merged else []))
    if _is_there(target, made_from, overwrite):
        return
    if not merged:
        save_adapter(target, lora, adapter, base_model=base, overwrite=overwrite, made_from=made_from)
        print(f"{target}: PEFT adapter of rank {lora.rank} for {base}")
        return
    # Merged in float32, so that weights are rounded only once.
    config, leaves = read_weights(base, np.float32)
    zeros = Counter()
    with new_folder(target, overwrite) as temporary:
        _copy_companions(Path(base), temporary, dtype)
        leaves = _narrow(merge(leaves, adapter, lora), dtype, zeros)
        leaves = _progress(leaves, abstract_params(config), dtype)
        write_tensors(temporary, hf_tensors(leaves, dtype))
        build_stamp.record(temporary, made_from)
    print(f"{target}: {base} with the adapter of {workdir}, {dtype}{_zeros_text(zeros)}")


def _narrow(leaves: Iterable[Leaf], dtype: str, zeros: Counter) -> Iterator[Leaf]:
    """Yields the leaves in `dtype`; `zeros` counts by tensor the weights that become 0.

    Raises UserError for a weight that is too large.
    """
    for path, leaf in leaves:
        if leaf.dtype != dtype:
            weights, layered = np.asarray(leaf), path[0] == "layers"
            leaf = np.empty(weights.shape, dtype)
            for layer in range(len(weights)) if layered else [...]:
                name = hf_name(path, layer if layered else None)
                leaf[layer] = cast(weights[layer], dtype, name)
                zeros[name] += np.count_nonzero(weights[layer]) - np.count_nonzero(leaf[layer])
            leaf = jax.device_put(leaf)
        yield path, leaf
        del leaf  # frees it before the next one is loaded


def _zeros_text(zeros: Counter) -> str:
    if not zeros.total():
        return ""
    name, most = zeros.most_common(1)[0]
    return f"; {zeros.total():,} weights are too small for it and became 0, most of them in {name}: {most:,}"


def _is_there(target: Path, made_from: str, overwrite: bool) -> bool:
    if overwrite or not build_stamp.is_made(target, made_from):
        return False
    print(build_stamp.UP_TO_DATE.format(target))
    return True


def _copy_companions(source: Path, target: Path, dtype: str) -> None:
    for file in source.iterdir():
        if file.is_file() and file.suffix in COMPANIONS and file.name != INDEX and file.name[0] != ".":
            shutil.copyfile(file, target / file.name)
    raw = json.loads((source / "config.json").read_bytes())
    raw.pop("dtype", None)  # the name in transformers 5
    (target / "config.json").write_text(json.dumps(raw | {"torch_dtype": dtype}, indent=2) + "\n")


def _progress(leaves: Iterator[Leaf], abstract: dict, dtype: str) -> Iterator[Leaf]:
    size = np.dtype(dtype).itemsize
    total = sum(leaf.size for leaf in abstract.values()) * size
    with tqdm(desc="convert", total=total, unit="B", unit_scale=True, mininterval=1.0) as bar:
        for path, leaf in leaves:
            nbytes = leaf.nbytes
            yield path, leaf
            del leaf  # frees it before the next one is loaded
            bar.update(nbytes)


if __name__ == "__main__":
    command.run_plain(main)

"""Makes a prepared data folder from raw files: read, clean, split, audit, move into place."""

from pathlib import Path

from ml_collections import ConfigDict

from r2rec_jax.chains.graph import build_graph
from r2rec_jax.data import prepared
from r2rec_jax.data.cleaning import Rules
from r2rec_jax.data.sources import make_dataset, origin, tied_truths
from r2rec_jax.data.split_audit import audit
from r2rec_jax.prompts.prompt_audit import audit_prompts
from r2rec_jax.runtime import build_stamp
from r2rec_jax.runtime.errors import UserError
from r2rec_jax.runtime.lock import locked
from r2rec_jax.runtime.text_table import text_table

OTHERS = (
    "folder",
    "raw",
    "workers",
)  # settings that do not change the result; the content behind `raw` is compared instead
CLOCKS = {prepared.TIME: "time", prepared.ORDER: "their order in the file"}
PROTOCOL = (
    "seed", "ties", "min_likes", "like_above", "negatives", "candidates", "before_target_time"
)  # fmt: skip


def main(config: ConfigDict, workdir: Path, overwrite: bool) -> None:
    rules, staging = Rules(), workdir.with_name(f"{workdir.name}.staging")
    settings = {name: value for name, value in config.data.to_dict().items() if name not in OTHERS}
    # Computed before reading, so that a file that changes meanwhile counts as changed.
    made_from = build_stamp.digest(
        settings, *([] if config.data.source == "generated" else [config.data.raw])
    )
    with locked(staging.with_name(f".{staging.name}.lock"), str(workdir)):
        there = build_stamp.is_made(workdir, made_from)
        if there and not overwrite:
            print(build_stamp.UP_TO_DATE.format(workdir))
            return
        if workdir.exists() and not overwrite:
            raise UserError(f"{workdir} already exists: choose another folder or add --overwrite")
        dataset = make_dataset(config.data, rules=rules, staging=staging)
        audit(dataset)
        before = config.data.before_target_time
        checked, alone = audit_prompts(
            dataset, build_graph(dataset), config.prompt, seed=config.seed, before_target_time=before
        )
        ties = tied_truths(rules, dataset, config.data.seed)
        source, licence = origin(config.data)
        prepared.save(
            dataset,
            workdir,
            source=source,
            licence=licence,
            protocol={name: config.data[name] for name in PROTOCOL},
            rules=rules.counts,
            ties=ties,
            overwrite=overwrite,
            staging=staging,
            made_from=made_from,
        )
    manifest = prepared.read_manifest(workdir)
    counts = manifest["counts"]
    rows = {
        name: f"{count:,}"
        for name, count in (counts | counts.pop("split") | manifest["rules"] | ties).items()
    }
    rows |= {
        "chains audited": f"{checked:,}",
        "users of the split without chains": f"{alone:,}",
        "ratings on the scale": dataset.scale,
        "a like is above": f"{dataset.split.like_above:g}",
        "rows are ordered by": CLOCKS[dataset.clock],
        "candidates": f"sha256 {manifest['candidates_sha256']}",
    }
    print(text_table(rows.items(), align="rl"))
    for warning in rules.warnings:
        print(f"WARNING  {warning}")

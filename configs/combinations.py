"""Checks combinations of config fields, after the ranges of single fields.

`check` takes a whole config; it also checks each stage inside a config (configs/reproduce.py).
"""

from collections.abc import Iterator

from ml_collections import ConfigDict

from r2rec_jax.runtime.errors import UserError

RANKED = ("hr@1", "hr@3", "ndcg@3", "mrr")
READ = ("valid_rate", "truncation_rate", "statements", "dropped_chains", "dropped_likes")
REWARDS = ("reward", "step", "rank", "failed_count")


def check(config: ConfigDict) -> None:
    """Raises UserError for the first invalid combination."""
    for name, section in sections(config, "config."):
        if "train" in section:
            _training(name, section)
        if section.get("stage") == "grpo" and "grpo" in section:
            _grpo(name, section)
        if "reward" in section:
            _reward(name, section.reward)
        if "rollout" in section:
            _rollout(name, section)
        if "corpus" in section:
            _curriculum(name, section)
        if section.get("module") == "sasrec" and section.width % section.heads:
            _refuse(name, f"width={section.width}", f"a multiple of heads={section.heads}")
    if "tables" in config:
        _whole_run(config)
    if config.get("tables") and not (config.seeds or config.policy_seeds):
        _refuse("config.", "seeds=()", "one seed or more, since tables are computed over seeds")


def sections(config: ConfigDict, prefix: str) -> Iterator[tuple[str, ConfigDict]]:
    """Yields (dotted name with a final dot, section) for the config and all its sections."""
    yield prefix, config
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from sections(value, f"{prefix}{name}.")


def _training(name: str, c: ConfigDict) -> None:
    train = c.train
    if "batch_size" not in train:
        return  # a config without training, e.g. of an evaluation
    if train.batch_size % (parts := train.micro_batches):
        _refuse(name, f"train.batch_size={train.batch_size}", f"a multiple of train.micro_batches={parts}")
    if train.patience and not train.best_metric:
        _refuse(
            name, f"train.patience={train.patience}", "0, or set train.best_metric to the metric to watch"
        )
    known = _reported(c)
    if train.best_metric and known is not None and train.best_metric not in known:
        wanted = f"one of {', '.join(known)}" if known else "'': this stage has no evaluation during training"
        _refuse(name, f"train.best_metric={train.best_metric!r}", wanted)
    if "module" in c and not train.best_metric:
        _refuse(
            name,
            "train.best_metric=''",
            "validation/ndcg@3 or another: the parameters of the best step are used",
        )
    if "profile" in c and c.profile.steps:
        first, last = map(int, c.profile.steps.split(":"))
        if not 0 < first < last or first > train.steps:
            wanted = f"FIRST from 1 to train.steps={train.steps}, and LAST above it"
            _refuse(name, f"profile.steps={c.profile.steps!r}", wanted)


def _reported(c: ConfigDict) -> tuple[str, ...] | None:
    """Metrics of the evaluations during training; None if reward.extra may add unknown ones."""
    if "module" in c:
        return tuple(f"validation/{name}" for name in RANKED)
    if c.get("stage") == "grpo":
        rewards = (*REWARDS, "facts") if c.reward.facts_weight else REWARDS
        return None if c.reward.extra else tuple(f"validation/{name}" for name in (*rewards, *RANKED, *READ))
    return () if "stage" in c else None


def _grpo(name: str, c: ConfigDict) -> None:
    alike = "a group of equal completions has zero advantages"
    if c.rollout.temperature == 0:
        _refuse(name, "rollout.temperature=0.0", f"a temperature above 0: {alike}")
    if c.rollout.top_k == 1:
        _refuse(name, "rollout.top_k=1", f"0 or 2 and more: {alike}")
    if c.rollout.min_p == 1:
        _refuse(name, "rollout.min_p=1.0", f"less than 1: {alike}")
    if c.grpo.dual_clip and c.grpo.dual_clip <= 1 + (high := c.grpo.clip_high):
        _refuse(name, f"grpo.dual_clip={c.grpo.dual_clip}", f"more than 1 + grpo.clip_high={high}, or 0")
    r = c.reward
    if not any((r.step_weight, r.rank_weight, r.facts_weight, *(r.extra_weights or r.extra))):
        _refuse(name, "reward.rank_weight=0.0", "a weight other than 0 for at least one reward")


def _reward(name: str, c: ConfigDict) -> None:
    weights = tuple(c.get("extra_weights", ()))
    if len(weights) not in (0, len(c.extra)):
        wanted = f"a weight for each of the {len(c.extra)} functions of reward.extra, or ()"
        _refuse(name, f"reward.extra_weights={weights}", wanted)


def _rollout(name: str, c: ConfigDict) -> None:
    modes = [system.get("mode") for system in c.get("systems", {}).values()]
    if (c.rollout.get("constrained") or "constrained" in modes) and c.rollout.stop:
        wanted = "(): stop texts could end a completion before its constrained answer"
        _refuse(name, f"rollout.stop={tuple(c.rollout.stop)}", wanted)


def _whole_run(c: ConfigDict) -> None:
    """Checks that the groups of users are large enough for all stages."""
    sizes = c.data.sizes
    needed = {"grpo": c.grpo.train.batch_size, "evaluation": 2}
    needed["sft"] = -(-c.sft.train.batch_size // len(c.annotate.tasks))
    needed["validation"] = 1 if c.grpo.train.best_metric else 0
    for group, least in needed.items():
        if sizes.get(group, 0) < least:
            _refuse(
                "config.",
                f"data.sizes.{group}={sizes.get(group, 0)}",
                f"{least} or more, which the stages need",
            )


def _curriculum(name: str, c: ConfigDict) -> None:
    stages = c.corpus.curriculum
    longest, most = max(length for _, length, _ in stages), c.model.architecture.max_position_embeddings
    if stages[-1][0] != 1.0:
        _refuse(
            name, f"corpus.curriculum={stages}", "1.0 as the fraction of the last part, the end of the run"
        )
    if longest > most:
        _refuse(name, f"corpus.curriculum={stages}", f"rows of up to max_position_embeddings={most} tokens")


def _refuse(section: str, found: str, wanted: str) -> None:
    raise UserError(f"--{section}{found}: use {wanted}")

"""Labels and table groups of the systems, and the methods of the paper that they correspond to."""

import dataclasses
from collections.abc import Iterable

from r2rec_jax.report.paper_numbers import R2REC, Published, published, published_transfer


@dataclasses.dataclass(frozen=True)
class System:
    """label: for readers. group: one of `result_table.GROUPS`. method: name in the paper, "" if absent."""

    label: str
    group: str
    method: str = ""


# By the name in users.jsonl and metrics.json, in the order of the tables.
SYSTEMS = {
    "random_order": System("Random order", "classical"),
    "popularity": System("Popularity", "classical"),
    "item_knn": System("Item-kNN", "classical"),
    "ease": System("EASE^R", "classical"),
    "graphsage": System("GraphSAGE", "classical", "GraphSAGE"),
    "ngcf": System("NGCF", "classical", "NGCF"),
    "lightgcn": System("LightGCN", "classical", "LightGCN"),
    "gru4rec": System("GRU4Rec", "classical", "GRU4Rec"),
    "caser": System("Caser", "classical", "Caser"),
    # sasrec_bce has the published loss; sasrec, with full softmax, is stronger and not in the paper.
    "sasrec_bce": System("SASRec", "classical", "SASRec"),
    "sasrec": System("SASRec, full softmax", "classical"),
    "gpt-4o-mini": System("GPT-4o-mini", "llm", "GPT-4o-mini"),
    "o4-mini": System("o4-mini", "llm", "o4-mini"),
    "chatrec": System("ChatRec", "llm", "ChatRec"),
    "tallrec": System("TALLRec", "llm", "TALLRec"),
    "llara": System("LLaRA", "llm", "LLaRA"),
    "prompt only, no interaction chain": System(
        "Prompt only, no interaction chain", "ours", "Prompt only, no interaction chain"
    ),
    "prompt only, no reasoning chain": System(
        "Prompt only, no reasoning chain", "ours", "Prompt only, no reasoning chain"
    ),
    "prompt only": System("Prompt only", "ours", "Prompt only"),
    "r2rec without sft": System("R2Rec without SFT", "ours", "R2Rec without SFT"),
    "r2rec without rl": System("R2Rec without RL", "ours", "R2Rec without RL"),
    "r2rec": System("R2Rec", "ours", R2REC),
}
POLICY = "r2rec"  # the final policy, after GRPO
# System in configs/eval.py -> system in the tables.
ALIASES = {"base": "prompt only", "sft": "r2rec without rl", "sft+grpo": POLICY}
CLASSICAL = tuple(name for name, system in SYSTEMS.items() if system.group == "classical")
CLOSED = ("gpt-4o-mini", "o4-mini")  # behind a server that needs a key
OTHER_LLMS = ("chatrec", "tallrec", "llara")
ABLATIONS = tuple(name for name, system in SYSTEMS.items() if system.group == "ours")
TABLES = {
    "table1": (*CLASSICAL, *CLOSED, *OTHER_LLMS, "r2rec"),
    "table2": ABLATIONS,
}
TRAINED_ON = "r2rec trained on "  # prefix of transfer systems, followed by the training data set


def about(name: str, *, classical: bool = False) -> System:
    """The entry of SYSTEMS, or one made for an unknown system.

    An unknown system keeps its name. It is in group "ours" if its name begins like one of that group,
    otherwise in "classical" or "llm".
    """
    name = ALIASES.get(name, name)
    if name in SYSTEMS:
        return SYSTEMS[name]
    base, *detail = name.split(", ", 1)
    label = SYSTEMS[base].label if base in SYSTEMS else base.replace("r2rec", "R2Rec")
    if base.startswith("r2rec") or (base in SYSTEMS and SYSTEMS[base].group == "ours"):
        group = "ours"
    else:
        group = "classical" if classical else "llm"
    return System(", ".join([label, *detail]), group)


def policy_in(names: Iterable[str]) -> str | None:
    """The name of the final policy among `names`; an alias counts only without POLICY. None if absent."""
    by_name = {
        ALIASES.get(name, name): name for name in sorted(names, key=ALIASES.__contains__, reverse=True)
    }
    return by_name.get(POLICY)


def paper_of(name: str, dataset: str) -> Published | None:
    """The paper's result of a system on a data set (`dataset_name`); None if it has none."""
    if name.startswith(TRAINED_ON):
        return published_transfer(name.removeprefix(TRAINED_ON), dataset)
    return published(about(name).method, dataset)

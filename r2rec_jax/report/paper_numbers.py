"""The paper's published numbers (arXiv 2506.05069): main results, ablations, transfer.

HR@1, HR@3 and NDCG@3 on MovieLens-1M, Amazon Book and Amazon Electronics, in this order.
"""

import dataclasses

from r2rec_jax.metrics.ranking_metrics import ndcg_bounds

# The paper's data sets: name in `trained` of a config -> `dataset_name`.
SHORT = {"ml1m": "ml-1m", "book": "amazon-2023 Books", "electronics": "amazon-2023 Electronics"}
DATASETS = tuple(SHORT.values())
R2REC = "R2Rec"

_RESULTS = {
    "GraphSAGE": (".313 .491 .461", ".321 .502 .465", ".318 .516 .443"),
    "NGCF": (".358 .512 .472", ".455 .521 .497", ".372 .524 .451"),
    "LightGCN": (".276 .491 .435", ".362 .537 .465", ".379 .563 .487"),
    "GRU4Rec": (".376 .504 .452", ".495 .572 .527", ".386 .521 .498"),
    "Caser": (".319 .496 .421", ".422 .631 .544", ".385 .518 .496"),
    "SASRec": (".380 .510 .452", ".531 .592 .544", ".391 .514 .453"),
    "GPT-4o-mini": (".240 .374 .317", ".344 .502 .436", ".222 .318 .276"),
    "o4-mini": (".274 .419 .357", ".466 .596 .541", ".282 .372 .335"),
    "ChatRec": (".230 .340 .293", ".304 .408 .362", ".258 .370 .315"),
    "TALLRec": (".318 .442 .401", ".412 .478 .421", ".342 .432 .368"),
    "LLaRA": (".371 .473 .454", ".528 .583 .556", ".403 .526 .491"),
    "Prompt only": (".230 .381 .317", ".366 .494 .440", ".192 .326 .268"),
    "Prompt only, no reasoning chain": (".186 .327 .267", ".278 .420 .361", ".172 .256 .219"),
    "Prompt only, no interaction chain": (".156 .299 .237", ".160 .324 .255", ".072 .156 .118"),
    "R2Rec without RL": (".320 .453 .397", ".528 .608 .574", ".436 .490 .467"),
    "R2Rec without SFT": (".156 .270 .221", ".248 .340 .300", ".112 .158 .139"),
    R2REC: (".404 .544 .484", ".586 .656 .627", ".460 .596 .538"),
}
# (trained on, tested on), as indices of DATASETS
_TRANSFER = {
    (0, 1): ".502 .616 .540",
    (0, 2): ".302 .362 .336",
    (1, 0): ".302 .442 .381",
    (1, 2): ".430 .478 .458",
    (2, 0): ".238 .324 .284",
    (2, 1): ".484 .594 .547",
}


@dataclasses.dataclass(frozen=True)
class Published:
    """One published result. `misprint`: the NDCG@3 is impossible for these HR@1 and HR@3."""

    hr_1: float
    hr_3: float
    ndcg_3: float

    @property
    def misprint(self) -> bool:
        low, high = ndcg_bounds(self.hr_1, self.hr_3, 3)
        # Rounding: half a unit of the third decimal in each of the three numbers.
        return not low - 0.0015 <= self.ndcg_3 <= high + 0.0015

    def metrics(self) -> dict[str, float]:
        return {"hr@1": self.hr_1, "hr@3": self.hr_3, "ndcg@3": self.ndcg_3}


def dataset_name(source: str, category: str) -> str:
    """The name in DATASETS for `data.source` of a config and, for an Amazon release, `data.category`."""
    return f"{source} {category}" if source.startswith("amazon") else source


def published(method: str, dataset: str) -> Published | None:
    """The paper's result of `method` on `dataset` (`dataset_name`); None if it has none."""
    if method not in _RESULTS or dataset not in DATASETS:
        return None
    return _read(_RESULTS[method][DATASETS.index(dataset)])


def published_transfer(trained: str, tested: str) -> Published | None:
    """R2Rec trained on one data set and tested on another; None if the paper has no number."""
    if trained not in DATASETS or tested not in DATASETS:
        return None
    cells = _TRANSFER.get((DATASETS.index(trained), DATASETS.index(tested)))
    return None if cells is None else _read(cells)


def _read(cells: str) -> Published:
    return Published(*map(float, cells.split()))

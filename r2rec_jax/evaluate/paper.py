"""The paper's published numbers (arXiv 2506.05069, main table and ablation), for comparison."""

_METHODS = {
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
    "R2Rec without SFT": (".156 .270 .221", ".248 .340 .300", ".112 .158 .139"),
    "R2Rec without RL": (".320 .453 .397", ".528 .608 .574", ".436 .490 .467"),
    "R2Rec": (".404 .544 .484", ".586 .656 .627", ".460 .596 .538"),
}
_DATASETS = ("ml-1m", "amazon-2023 Books", "amazon-2023 Electronics")


def paper_rows(source: str, category: str) -> list[dict] | None:
    """Rows {"name", "hr@1", "hr@3", "ndcg@3"} of the paper for a data source (`category`: of an Amazon
    one); None if it has none."""
    dataset = f"{source} {category}" if source.startswith("amazon") else source
    if dataset not in _DATASETS:
        return None
    column = _DATASETS.index(dataset)
    return [
        {"name": name} | dict(zip(("hr@1", "hr@3", "ndcg@3"), map(float, cells[column].split()), strict=True))
        for name, cells in _METHODS.items()
    ]

"""Measures of how faithful a policy is to its prompt and reasoning, computed from trials.

A user's distribution over candidates is the softmax of the log-probabilities that the answer names each
first. A user's value is the mean over runs. Means and 95% bootstrap intervals are over the users who have a
value; differences are paired by user.
"""

import numpy as np
from scipy.stats import kendalltau

from r2rec_jax.faithful.edits import EDITS, LIKENESSES, NEUTRAL, TWINS
from r2rec_jax.faithful.trials import OWN, REASONINGS
from r2rec_jax.metrics.intervals import bootstrap_ci
from r2rec_jax.metrics.system_metrics import difference
from r2rec_jax.teachers.facts import KINDS


def measure_edits(score: dict[str, np.ndarray], alike: dict[str, np.ndarray], seed: int) -> dict[str, dict]:
    """The effect of each edit of the prompt on the ranking.

    Args:
      score: OWN or edit -> log-probabilities, float64 [n, R, C] of n users in R runs; nan where a user
        lacks the edit.
      alike: likeness -> the candidates similar to the target's last item, bool [n, C].
      seed: of the bootstrap.

    Returns:
      Edit -> JSON-able {"mean", "ci95", "users"} of

      - "shift" by likeness: change of the similar candidates' probability. A faithful policy lowers it when
        their support is removed.
      - "rank_shift" by likeness: change of their mean rank; above 0 they drop.
      - "moved": total variation distance, half the sum of absolute probability changes.
      - "top_changed": whether another candidate is first.

      Edits of TWINS also have differences from other edits (`system_metrics.difference`): "shift_less_twin"
      by likeness, and "moved_less" by twin and NEUTRAL edit.
    """
    p = softmax(score[OWN])
    values = {name: _effects(p, softmax(score[name]), alike) for name in EDITS if name in score}
    found = {name: _nested(effects, lambda v: estimate(v, seed)) for name, effects in values.items()}
    for name, twin in TWINS.items():
        if name not in values:
            continue
        own, others = values[name], [other for other in (twin, *NEUTRAL) if other in values]
        found[name]["moved_less"] = {
            other: paired(own["moved"], values[other]["moved"], seed) for other in others
        }
        if twin in values:
            found[name]["shift_less_twin"] = {
                kind: paired(own["shift"][kind], values[twin]["shift"][kind], seed) for kind in LIKENESSES
            }
    return found


def measure_reasoning(score: dict[str, np.ndarray], truth: np.ndarray, seed: int) -> dict[str, dict]:
    """How much the ranking depends on the reasoning, with the prompt unchanged.

    Args:
      score: as for `measure_edits`, by OWN and REASONINGS.
      truth: int [n], index of the held-out item among the candidates.

    Returns:
      OWN or reasoning -> {"mean", "ci95", "users"} of "hr@1", the share of users whose held-out item is
      first. All but OWN also have "hr@1_less_own" (`system_metrics.difference`), "same_top", whether the same
      candidate is first as with the own reasoning, and "tau", Kendall's rank correlation with that ranking.
    """
    own, found = score[OWN], {}
    hit = {name: _hits(score[name], truth) for name in (OWN, *REASONINGS) if name in score}
    for name, hits in hit.items():
        found[name] = {"hr@1": estimate(hits, seed)}
        if name != OWN:
            found[name]["hr@1_less_own"] = paired(hits, hit[OWN], seed)
            found[name]["same_top"] = estimate(1 - _top_changed(own, score[name]), seed)
            found[name]["tau"] = estimate(rank_correlation(own, score[name]), seed)
    return found


def measure_facts(users: list[list[dict]], seed: int) -> dict:
    """The share of statements that the prompt does not support.

    Args:
      users: for each user the statements of all runs. "facts" of a statement are (kind, supported) pairs; a
        statement without facts is unchecked.

    Returns:
      Counts "statements", "unsupported" and "unchecked"; "unsupported_rate" of a user's checked statements;
      "unchecked_rate" of all of a user's statements; "facts": kind -> number, number unsupported, and "rate".
    """
    rows = [[row["facts"] for row in rows] for rows in users]
    wrong = [[not all(ok for _, ok in facts) for facts in user if facts] for user in rows]
    unread = [[not facts for facts in user] for user in rows]
    kinds = {}
    for kind in KINDS:
        supported = [[ok for facts in user for name, ok in facts if name == kind] for user in rows]
        rate = estimate(_shares([[not ok for ok in user] for user in supported]), seed)
        unsupported = sum(not ok for user in supported for ok in user)
        kinds[kind] = {"facts": sum(map(len, supported)), "unsupported": unsupported, "rate": rate}
    return {
        "statements": sum(map(len, rows)),
        "unsupported": sum(map(sum, wrong)),
        "unchecked": sum(map(sum, unread)),
        "unsupported_rate": estimate(_shares(wrong), seed),
        "unchecked_rate": estimate(_shares(unread), seed),
        "facts": kinds,
    }


def estimate(values: np.ndarray, seed: int) -> dict:
    """{"mean", "ci95": [low, high], "users"} of one value per user; nan marks a user without a value.

    Without any value, mean and interval are None.
    """
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if not values.size:
        return {"mean": None, "ci95": None, "users": 0}
    return {"mean": float(values.mean()), "ci95": list(bootstrap_ci(values, seed)), "users": values.size}


def paired(a: np.ndarray, b: np.ndarray, seed: int) -> dict:
    """`system_metrics.difference` over the users who have both values, and their number, "users"."""
    both = ~(np.isnan(a) | np.isnan(b))
    if not both.any():
        return {"difference": None, "ci95": None, "p": None, "users": 0}
    return difference(a[both], b[both], seed) | {"users": int(both.sum())}


def softmax(score: np.ndarray) -> np.ndarray:
    """Softmax over the last axis."""
    weights = np.exp(score - score.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def ranks(score: np.ndarray) -> np.ndarray:
    """Rank of each candidate, 1 for the highest score; ties keep the order of the candidates."""
    return 1 + np.argsort(np.argsort(-score, axis=-1, kind="stable"), axis=-1)


def rank_correlation(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of two scores of the same candidates: [n, R, C] -> [n], the mean over runs."""
    pairs = np.stack([a, b], axis=2).reshape(-1, 2, a.shape[-1])
    taus = [np.nan if np.isnan(pair).any() else kendalltau(*pair).statistic for pair in pairs]
    return np.reshape(taus, a.shape[:2]).mean(axis=1)


def _effects(p: np.ndarray, q: np.ndarray, alike: dict[str, np.ndarray]) -> dict:
    """Effects [n] of an edit that changed the probabilities p [n, R, C] into q."""
    rank = ranks(q) - ranks(p)
    shift, rank_shift = {}, {}
    for kind, alike_nC in alike.items():
        # Undefined for a user without similar candidates.
        count = np.where(alike_nC.any(axis=1), alike_nC.sum(axis=1), np.nan)[:, None]
        some = np.where(np.isnan(count), np.nan, 1.0)
        shift[kind] = (((q - p) * alike_nC[:, None]).sum(axis=2) * some).mean(axis=1)
        moved = (rank * alike_nC[:, None]).sum(axis=2) / count
        rank_shift[kind] = np.where(np.isnan(q).any(axis=2), np.nan, moved).mean(axis=1)
    moved = (abs(q - p).sum(axis=2) / 2).mean(axis=1)
    return {"shift": shift, "rank_shift": rank_shift, "moved": moved, "top_changed": _top_changed(p, q)}


def _top_changed(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """[n], the share of runs in which another candidate is first."""
    changed = a.argmax(axis=2) != b.argmax(axis=2)
    return np.where(np.isnan(a + b).any(axis=2), np.nan, changed).mean(axis=1)


def _hits(score: np.ndarray, truth: np.ndarray) -> np.ndarray:
    hit = score.argmax(axis=2) == truth[:, None]
    return np.where(np.isnan(score).any(axis=2), np.nan, hit).mean(axis=1)


def _shares(users: list[list[bool]]) -> np.ndarray:
    """The share of true values of each user; nan for a user without values."""
    return np.array([np.mean(user) if user else np.nan for user in users])


def _nested(values: dict, function) -> dict:
    """Applies `function` to every leaf of a nested dict."""
    return {
        name: _nested(value, function) if isinstance(value, dict) else function(value)
        for name, value in values.items()
    }

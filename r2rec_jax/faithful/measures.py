"""How faithful a policy is to its prompt and to its reasoning, from what trials found.

A user's distribution over candidates is the softmax of the log-probabilities that the answer names each
first. A user's value is the mean of the runs; means and 95% intervals (bootstrap) are over the users who
have one, differences paired by user.
"""

import numpy as np
from scipy.stats import kendalltau

from r2rec_jax.faithful.edits import EDITS, LIKENESSES, NEUTRAL, TWINS
from r2rec_jax.faithful.trials import OWN, REASONINGS
from r2rec_jax.metrics.intervals import bootstrap_ci
from r2rec_jax.metrics.system_metrics import difference
from r2rec_jax.teachers.facts import KINDS


def measure_edits(score: dict[str, np.ndarray], alike: dict[str, np.ndarray], seed: int) -> dict[str, dict]:
    """What each edit of the prompt does to the ranking.

    Args:
      score: by OWN and edit, log-probabilities float64 [n, R, C] of n users in R runs; nan where a user has
        no such edit.
      alike: of each of LIKENESSES, the candidates like the target's last item, bool [n, C].
      seed: of the resampling.

    Returns:
      By edit, JSON-ready, {"mean", "ci95", "users"} of

      - "shift" by likeness: the probability that candidates alike have after the edit, less what they had
        before. Faithful to its prompt, a policy takes from them when what speaks for them goes.
      - "rank_shift" by likeness: their mean rank after, less before; above 0 they lose.
      - "moved": half the sum of all absolute changes, the probability that changed hands.
      - "top_changed": whether another candidate is first.

      Edits of TWINS also have what is left after taking off what another edit does, as `measure.difference`
      gives it: "shift_less_twin" by likeness, and "moved_less" by twin and NEUTRAL edit.
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
    """How much the ranking depends on the reasoning: the prompt stays, the reasoning before the answer goes.

    Args:
      score: as for `measure_edits`, by OWN and REASONINGS.
      truth: int [n], its index among the candidates.

    Returns:
      By OWN and reasoning, {"mean", "ci95", "users"} of "hr@1", the share of users whose truth comes first;
      but for OWN also "hr@1_less_own" (`measure.difference`), "same_top", whether the same candidate comes
      first as after the own reasoning, and "tau", Kendall's rank correlation of the two orders.
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
    """What part of the statements the prompt does not support.

    Args:
      users: of each user the statements of all runs, each with its "facts", pairs of a kind and whether it
        is supported; a statement without facts could not be checked.

    Returns:
      "statements", "unsupported" and "unchecked", counted; "unsupported_rate": of a user's checked
      statements; "unchecked_rate": of all of a user's; and "facts" by kind: their number, how many are
      unsupported, and the "rate" of these.
    """
    rows = [[row["facts"] for row in rows] for rows in users]
    wrong = [[not all(ok for _, ok in facts) for facts in user if facts] for user in rows]
    unread = [[not facts for facts in user] for user in rows]
    kinds = {}
    for kind in KINDS:
        told = [[ok for facts in user for one, ok in facts if one == kind] for user in rows]
        rate = estimate(_shares([[not ok for ok in user] for user in told]), seed)
        unsupported = sum(not ok for user in told for ok in user)
        kinds[kind] = {"facts": sum(map(len, told)), "unsupported": unsupported, "rate": rate}
    return {
        "statements": sum(map(len, rows)),
        "unsupported": sum(map(sum, wrong)),
        "unchecked": sum(map(sum, unread)),
        "unsupported_rate": estimate(_shares(wrong), seed),
        "unchecked_rate": estimate(_shares(unread), seed),
        "facts": kinds,
    }


def estimate(values: np.ndarray, seed: int) -> dict:
    """{"mean", "ci95": [low, high], "users"} of one value a user; nan is a user without one. Without any
    user mean and interval are None."""
    values = np.asarray(values, float)
    values = values[~np.isnan(values)]
    if not values.size:
        return {"mean": None, "ci95": None, "users": 0}
    return {"mean": float(values.mean()), "ci95": list(bootstrap_ci(values, seed)), "users": values.size}


def paired(a: np.ndarray, b: np.ndarray, seed: int) -> dict:
    """`measure.difference` of the users who have both values, and how many "users" these are."""
    both = ~(np.isnan(a) | np.isnan(b))
    if not both.any():
        return {"difference": None, "ci95": None, "p": None, "users": 0}
    return difference(a[both], b[both], seed) | {"users": int(both.sum())}


def softmax(score: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    likely = np.exp(score - score.max(axis=-1, keepdims=True))
    return likely / likely.sum(axis=-1, keepdims=True)


def ranks(score: np.ndarray) -> np.ndarray:
    """Of each candidate, from 1 for the highest score; of equal ones the first comes first."""
    return 1 + np.argsort(np.argsort(-score, axis=-1, kind="stable"), axis=-1)


def rank_correlation(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Kendall's tau-b of two scores of the same candidates: [n, R, C] -> [n], the mean of the runs."""
    pairs = np.stack([one, other], axis=2).reshape(-1, 2, one.shape[-1])
    taus = [np.nan if np.isnan(pair).any() else kendalltau(*pair).statistic for pair in pairs]
    return np.reshape(taus, one.shape[:2]).mean(axis=1)


def _effects(p: np.ndarray, q: np.ndarray, alike: dict[str, np.ndarray]) -> dict:
    """The values [n] of an edit that turned p [n, R, C] into q."""
    rank = ranks(q) - ranks(p)
    shift, rank_shift = {}, {}
    for kind, alike_nC in alike.items():
        # Without any candidate alike there is nothing to gain or lose.
        count = np.where(alike_nC.any(axis=1), alike_nC.sum(axis=1), np.nan)[:, None]
        some = np.where(np.isnan(count), np.nan, 1.0)
        shift[kind] = (((q - p) * alike_nC[:, None]).sum(axis=2) * some).mean(axis=1)
        moved = (rank * alike_nC[:, None]).sum(axis=2) / count
        rank_shift[kind] = np.where(np.isnan(q).any(axis=2), np.nan, moved).mean(axis=1)
    moved = (abs(q - p).sum(axis=2) / 2).mean(axis=1)
    return {"shift": shift, "rank_shift": rank_shift, "moved": moved, "top_changed": _top_changed(p, q)}


def _top_changed(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """[n], the share of the runs."""
    changed = one.argmax(axis=2) != other.argmax(axis=2)
    return np.where(np.isnan(one + other).any(axis=2), np.nan, changed).mean(axis=1)


def _hits(score: np.ndarray, truth: np.ndarray) -> np.ndarray:
    hit = score.argmax(axis=2) == truth[:, None]
    return np.where(np.isnan(score).any(axis=2), np.nan, hit).mean(axis=1)


def _shares(users: list[list[bool]]) -> np.ndarray:
    """The share of each user's that are true; nan for a user without any."""
    return np.array([np.mean(user) if user else np.nan for user in users])


def _nested(values: dict, of) -> dict:
    return {name: _nested(one, of) if isinstance(one, dict) else of(one) for name, one in values.items()}

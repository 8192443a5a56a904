"""Comparison systems that need no language model.

Each module holds one `fit_score(dataset, users, **settings) -> float64[len(users), C]`: it learns
from the interactions before every user's cutoff and scores `dataset.split.candidates[users]`,
higher is better. `suite.score` picks one by name; ranks and metrics are `r2rec_jax.evaluate`'s.
"""

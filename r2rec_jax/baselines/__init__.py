"""Baselines without a language model.

A baseline trains on the interactions before every user's cutoff and scores `dataset.split.candidates[users]`,
float64[len(users), C], higher is better. `suite.score` selects one by name. r2rec_jax/metrics computes ranks
and metrics.
"""

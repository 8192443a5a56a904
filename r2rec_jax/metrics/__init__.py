"""Ranking metrics, confidence intervals and paired tests."""

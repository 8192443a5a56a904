"""Suites that measure this code beside its peers; torch lives in their processes only."""

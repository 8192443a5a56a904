"""Prefill, decode over shared prompt keys, and sampling."""

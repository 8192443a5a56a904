"""Prompt texts from chains and candidates, their tokens, and the rankings parsed from completions."""

"""Trials: commands that are killed again and again, and a long run that must not grow."""

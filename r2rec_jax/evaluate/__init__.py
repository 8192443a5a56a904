"""Completions judged, rankings scored, intervals, and the report."""

"""Faithfulness: whether rankings follow the prompt and the reasoning."""

"""Llama in flax.linen with hand-written LoRA, token log-probabilities, and loading and saving of weights."""

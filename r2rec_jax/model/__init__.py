"""Llama in flax.linen with hand-written LoRA, token log-probabilities, and weights in and out."""

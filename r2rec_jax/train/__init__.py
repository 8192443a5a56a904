"""The SFT and GRPO steps, rewards, optimiser, and the loop that drives either."""

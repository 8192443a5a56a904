"""Teachers that write traces for SFT, and the validator that accepts or rejects them."""

"""Text out of chains and candidates, tokens out of text, and rankings back out of completions."""

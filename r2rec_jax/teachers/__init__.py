"""Who writes the traces that SFT learns, and the judge that lets them pass."""

"""Through grain: example index -> chains -> prompt -> tokens -> padded batch."""

"""The grain input pipeline: example index -> chains -> prompt -> tokens -> padded batch."""

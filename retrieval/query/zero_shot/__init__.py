"""Zero-shot classification: what pictures are, by words alone."""

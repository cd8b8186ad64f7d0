"""Classification by example: what labelled neighbours say, and how far that can be trusted."""

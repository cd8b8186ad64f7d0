"""The shape of a dataset: how alone, how good and how typical its images are."""

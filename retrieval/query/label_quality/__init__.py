"""Which given labels are likely wrong, with what speaks against them."""

"""What is the same among pictures, why, and what to do about it."""

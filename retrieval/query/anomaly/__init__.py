"""What is odd about a picture, and where, told by normal ones."""

"""What a paired encoder remembers of its training images."""

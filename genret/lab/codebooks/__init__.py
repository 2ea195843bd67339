"""How evenly codes are used, and what they keep of the images."""

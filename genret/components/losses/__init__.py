"""Loss terms of both training stages."""

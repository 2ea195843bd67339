"""Guidance: the distance to the query's own vector, at the cost of the beams alone."""

"""Templates of `genret plugins new`: working components that pass the conformance kit."""

"""What `genret plugins new` starts a plugin from: working components that pass the conformance kit."""

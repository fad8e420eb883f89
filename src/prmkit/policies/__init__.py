"""Who speaks: policies continue prefixes of trajectories."""

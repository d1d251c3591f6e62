"""The Docker Engine API: swarm calls answered here, all others handed to the engine of the host."""

"""This host's part of the swarm's networks."""

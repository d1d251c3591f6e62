"""What `docker events` shows of the swarm."""

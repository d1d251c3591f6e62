"""`afterswarm …`: the command line."""

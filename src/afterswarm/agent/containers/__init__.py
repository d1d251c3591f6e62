"""This host's tasks and their containers."""

"""Compose files as stacks: read, converted to what the Engine API takes, compared with what runs, deployed."""

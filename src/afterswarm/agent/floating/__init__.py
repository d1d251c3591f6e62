"""Floating addresses on this host."""

"""Beats: heard here, sent by a process of its own."""

"""Answers to containers' questions for names: a process of its own (`server`), and what keeps it (`names`)."""

"""The same ports in memory, with latency, loss and crashes from a seed."""

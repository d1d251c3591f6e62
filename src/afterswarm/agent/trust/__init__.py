"""Who this node is, and how it came to be."""

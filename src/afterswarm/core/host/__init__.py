"""What one host does with one task's container."""

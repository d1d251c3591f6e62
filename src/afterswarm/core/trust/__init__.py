"""Join tokens and certificates, as values."""

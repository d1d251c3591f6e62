"""What users ask for, made into objects or refused in Docker's words: one file a kind of object."""

"""Names: what a host may answer (`zone`, made by the daemon) and what an answer is (`lookup`, in the resolver)."""

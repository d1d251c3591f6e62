"""What holds the managers together: who is alive, who leads, who votes, what a commit depends on."""

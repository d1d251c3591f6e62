"""The shells of a manager: the loop that runs planners, the cache they read, the calls of other hosts."""

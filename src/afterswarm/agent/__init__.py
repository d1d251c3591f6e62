"""The shells of a host: its session with a manager, its containers, its network, its reports."""

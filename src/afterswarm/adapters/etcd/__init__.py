"""etcd: the store, its members, and the process itself."""

"""Hosts on one machine: namespaces, an engine and a daemon each, power cuts and partitions."""

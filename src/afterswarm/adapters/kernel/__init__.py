"""Linux: devices, rules, flows and namespaces."""

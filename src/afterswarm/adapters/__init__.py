"""The real world, one file each: etcd, Docker Engine, nftables, netlink. No decisions."""

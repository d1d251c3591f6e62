"""What the kernel of one host should hold, as a function of what its manager said: text and values, no I/O.

`targets` chooses who gets traffic, `nftables` writes rulesets, `vxlan` the links of overlay networks, `paths` the ways
back to other hosts, `diff` what to change where the kernel holds something else.
"""

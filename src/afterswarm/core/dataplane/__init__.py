"""What the kernel of one host should hold, as a function of what its manager said: text and values, no I/O.

`targets` chooses who gets traffic, `host_rules` (with `mesh`) and `container_rules` make rulesets, `ruleset` finds the
way from one to another, `vxlan` the links of overlay networks, `paths` the ways back to other hosts, `diff` what to
change where the kernel holds something else.
"""

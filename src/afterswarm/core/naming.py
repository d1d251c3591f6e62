"""Names for services whose users give none: two words, easy to say and to type.

Docker draws an adjective and a scientist; ours are derived, so that a decision made twice is the same.
"""

from __future__ import annotations

from collections.abc import Container
from itertools import count

from afterswarm import ids


def _words(text: str) -> list[str]:
    return text.split()


_HOW = _words("""
    able amber bold brave brisk calm clear clever cosy crisp eager early fair fine fleet fond gentle glad golden
    happy hardy honest jolly keen kind light lively lucky merry mild neat noble patient plain proud quick quiet
    ready silver simple smart snug solid steady still sunny swift tidy true warm wise witty
""")
_WHAT = _words("""
    alder ash aspen beech birch box cedar cherry chestnut cypress dogwood elder elm fig fir hawthorn hazel
    hemlock hickory holly hornbeam ivy juniper larch laurel lilac lime linden magnolia maple medlar mulberry
    myrtle oak olive osier palm pear pine plane plum poplar quince rowan sequoia sloe spruce sumac sycamore
    tamarisk walnut willow yew
""")


def spare(seed: object, taken: Container[str]) -> str:
    """A name that is not taken; the same for the same seed."""
    for attempt in count():
        drawn = int(ids.derive("name", seed, attempt), 36)
        name = f"{_HOW[drawn % len(_HOW)]}_{_WHAT[drawn // len(_HOW) % len(_WHAT)]}"
        if attempt > len(_HOW):  # a swarm with thousands of them
            name += f"_{attempt}"
        if name not in taken:
            break
    return name

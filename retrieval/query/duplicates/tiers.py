"""How much two pictures have in common, in five steps."""

from __future__ import annotations

from typing import Literal

Tier = Literal["exact", "copy", "edited", "scene", "concept"]
"""*exact*: the same bytes; *copy*: the same picture, packed or sized again; *edited*: one is a
crop, mirror image, rotation, colour edit or overlay of the other; *scene*: the same things,
photographed again; *concept*: nothing but their vectors says that they belong together."""

TIERS: tuple[Tier, ...] = ("exact", "copy", "edited", "scene", "concept")
"""Strongest first."""

SAME: tuple[Tier, ...] = ("exact", "copy", "edited")
"""The tiers that people act on."""

"""The models whose sizes the package knows, by the names of their presets."""

from __future__ import annotations

from studio.models.inspect.known_shapes import KNOWN

PUBLISHED = {model.name: model for model in KNOWN}

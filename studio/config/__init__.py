"""What is asked for: every option declared once.

A field of these models carries type, bounds, default, unit, one-line help, tier and where it applies. The
form, the YAML file, `--set`, the JSON Schema and docs/config.md are all made from it (`describe.py`).
"""

from studio.config.run import RunConfig

__all__ = ["RunConfig"]

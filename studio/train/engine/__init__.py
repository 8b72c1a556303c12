"""Where the speed of a step lives. Each piece equals the plain library (tests/parity) and falls back to it."""

"""Reading configs whose keys depend on each other: Axolotl, TRL, ms-swift, and what the three have in common."""

"""The Data tab and its cards."""

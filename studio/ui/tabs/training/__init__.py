"""The Training tab and its cards."""

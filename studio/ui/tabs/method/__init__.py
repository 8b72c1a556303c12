"""The Method tab and its cards."""

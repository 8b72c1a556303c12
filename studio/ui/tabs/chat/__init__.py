"""The Chat tab and its panes."""

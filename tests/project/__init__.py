"""What holds for the repository itself: its lock, its Dockerfile, its docstrings, what modules may name."""

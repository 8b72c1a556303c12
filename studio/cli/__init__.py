"""The command line: the same services as the page, for terminals and scripts."""

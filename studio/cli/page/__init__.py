"""The commands about the page and this machine: ui, password, doctor."""

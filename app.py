"""`python app.py`: serve the page; the same as `studio ui`."""

from studio.cli.main import main

raise SystemExit(main(["ui"]))

"""`python app.py`: serve the page; the same as `studio ui`."""

from studio.ui.app import main

raise SystemExit(main())

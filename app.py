"""`python app.py`: serve the page; the same as `studio ui`."""

from studio.ui.server.app import main

raise SystemExit(main())

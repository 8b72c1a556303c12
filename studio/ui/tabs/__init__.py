"""The tabs, one module each, in the order of work. Each has `build(page)`, called inside its `gr.Tab`."""

"""Programs that are not ours, as tests start them."""

"""Records that tests send."""

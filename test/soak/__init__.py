"""The node under load, for long; see scripts/soak."""

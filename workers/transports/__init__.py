"""What carries one HTTP call to a provider and back; start at protocol.py, what can go wrong is in errors.py."""

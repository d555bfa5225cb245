"""What the product costs, as ratios of two things measured in turn in one run; start at `__main__.py`."""

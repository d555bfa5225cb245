"""The shipped demo: its jobs, one file a priority, and what the worker and the simulator are told. `generate.py` makes the jobs."""

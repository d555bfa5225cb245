"""What moves jobs through a worker: reading, taking, choosing, finishing, sending, and the lease. `workers/app.py` puts the parts together."""

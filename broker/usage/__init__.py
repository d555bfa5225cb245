"""The ledger as accountants and analysts use it: `invoice.py` reads what a provider says, `reconcile.py` names what differs."""

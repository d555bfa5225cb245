"""Kills workers and says whether the guarantees held: start at `driver.py`; `checker.py` judges and imports nothing of ours."""

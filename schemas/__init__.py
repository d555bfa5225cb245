"""The words on the wire: what a job, a result, a usage event and a control message look like to anyone with a Kafka client.

Start at `job.py`. `codes.py` lists every code that a user can meet; `generate.py` writes JSON Schema and AsyncAPI from these models.
"""

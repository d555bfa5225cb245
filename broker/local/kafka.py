"""A real Apache Kafka in KRaft mode on this machine: one node, its data in a folder, loopback only."""

import base64
import os
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from broker.local import jars, java, ports, readiness
from broker.local.processes import Child, Children

VERSION = "4.2.0"
JARS = jars.JarSet(
    f"Kafka {VERSION}", 46, Path(__file__).with_name("kafka_jars.txt"), ", or use a Kafka of yours with --kafka"
)
"""What `org.apache.kafka:kafka_2.13:4.2.0` and `org.slf4j:slf4j-simple:1.7.36` need at run time, and `kafka-tools` for Kafka's own console
programs; fetching by name takes 7 s, resolving it anew 28 s."""

HEAP_MB = 384
_START_S = 180
_STOP_S = 20
_FORMAT_S = 120
_LARGEST_RECORD = 4_194_304  # so that a record over our own limit can arrive, and be told so

_PROPERTIES = """\
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@{host}:{controller_port}
listeners=BROKER://{host}:{port},CONTROLLER://{host}:{controller_port}
advertised.listeners=BROKER://{host}:{port}
listener.security.protocol.map=BROKER:PLAINTEXT,CONTROLLER:PLAINTEXT
inter.broker.listener.name=BROKER
controller.listener.names=CONTROLLER
log.dirs={data}
num.partitions=8
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=8
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
message.max.bytes={largest}
replica.fetch.max.bytes={largest}
# After a kill -9 the node may come back only when the session of its former life has run out: 9 s by default.
broker.session.timeout.ms=3000
broker.heartbeat.interval.ms=500
"""


_BEHIND = (
    ("listeners=", ",BEHIND://{host}:{port}"),
    ("advertised.listeners=", ",BEHIND://{host}:{proxy}"),
    ("listener.security.protocol.map=", ",BEHIND:PLAINTEXT"),
)


def properties(data: Path, port: int, controller_port: int, behind: tuple[int, int] | None = None) -> str:
    """Return the text of `server.properties` for a node that keeps its data in the folder `data`.

    `behind` is the port of a second listener and that of the proxy before it: who comes through the proxy is told to come back through it.
    """
    escaped = str(data).replace("\\", "\\\\")
    text = _PROPERTIES.format(
        host=ports.HOST, port=port, controller_port=controller_port, data=escaped, largest=_LARGEST_RECORD
    )
    if behind is None:
        return text
    more = {name: added.format(host=ports.HOST, port=behind[0], proxy=behind[1]) for name, added in _BEHIND}
    return "".join(f"{line}{more.get(line.partition('=')[0] + '=', '')}\n" for line in text.splitlines())


def cluster_id(new: Callable[[], uuid.UUID]) -> str:
    """A new cluster's id, 22 characters of base64; none that begins with a dash, which Kafka's tool takes for an option."""
    while (made := base64.urlsafe_b64encode(new().bytes).decode().rstrip("=")).startswith("-"):
        pass
    return made


class Kafka:
    """A Kafka whose port stays the same over restarts."""

    def __init__(
        self,
        folder: Path,
        children: Children,
        *,
        environment: Mapping[str, str],
        port: int = 0,
        heap_mb: int = HEAP_MB,
        proxy_port: int | None = None,
    ) -> None:
        """Data and configuration go to `folder`; port 0 means any free one.

        `proxy_port` is that of a proxy on this machine which leads to `behind_port`, a second listener.
        """
        self._folder = folder
        self._children = children
        self._environment = environment
        self._heap_mb = heap_mb
        self.port = ports.choose(port, "Kafka")
        self._controller_port = ports.choose(0, "Kafka's controller")
        self.behind_port = ports.choose(0, "Kafka behind a proxy") if proxy_port is not None else None
        self._proxy_port = proxy_port
        self._command: list[str] = []
        self.child: Child | None = None

    @property
    def url(self) -> str:
        """The bootstrap server, `host:port`."""
        return f"{ports.HOST}:{self.port}"

    async def start(self, progress: Callable[[str], None]) -> None:
        """Start it, on the data that is there, and return when a consumer group can join.

        Raises:
            LocalError: jars or Java are missing, or it ended before it was ready.
        """
        self._command = await self._java_command(progress)
        data = self._folder / "data"
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = self._folder / "server.properties"
        behind = None if self.behind_port is None or self._proxy_port is None else (self.behind_port, self._proxy_port)
        settings.write_text(properties(data, self.port, self._controller_port, behind))
        if not (data / "meta.properties").exists():
            await self._format(settings)
        command = self.program("kafka.Kafka", str(settings))
        self.child = self._children.start("kafka", command, self._environment)
        await self.child.ready(self._answers, _START_S)

    def program(self, main_class: str, *arguments: str) -> list[str]:
        """Return the command line of one of Kafka's own programs, once Kafka has been started.

        The console producer is `org.apache.kafka.tools.ConsoleProducer`.
        """
        return [*self._command, main_class, *arguments]

    async def stop(self) -> None:
        """Stop it cleanly."""
        if self.child is not None:
            await self.child.stop(_STOP_S)

    async def _answers(self) -> bool:
        return await readiness.port_open(self.port) and await readiness.group_can_join(self.url)

    async def _format(self, settings: Path) -> None:
        command = self.program("kafka.tools.StorageTool", "format", "-t", cluster_id(uuid.uuid4), "-c", str(settings))
        child = self._children.start("kafka-format", command, self._environment)
        if not await child.ended(_FORMAT_S) or child.exit_code != 0:
            child.kill()
            raise child.failure("could not prepare its data folder")

    async def _java_command(self, progress: Callable[[str], None]) -> list[str]:
        class_path = await jars.provide(JARS, self._environment, self._children, progress)
        return [
            str(await java.find(self._environment)),
            f"-Xmx{self._heap_mb}m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            "-XX:+ExitOnOutOfMemoryError",
            "-Dorg.slf4j.simpleLogger.showDateTime=true",
            "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
            "-Dorg.slf4j.simpleLogger.log.org.apache.kafka.common.config=warn",  # 200 lines of settings at every start
            "-cp",
            os.pathsep.join(map(str, class_path)),
        ]

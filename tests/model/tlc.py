"""Runs TLC, the model checker of TLA+, and reads what it says."""

import asyncio
import re
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from broker.local import jars, java
from broker.local.processes import Children

MODELS = Path(__file__).parents[2] / "docs" / "protocol"
JARS = jars.JarSet("TLC 2.18", 3, Path(__file__).with_name("tlc_jar.txt"))
"""Its makers publish no release to the Maven registry; this is theirs, published again by the makers of ProB."""

_JVM = ("-Xmx3g", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
"""The second compiler of Java costs a short run as much as the run itself, and saves nothing in one of half a minute."""

_STATES = re.compile(r"^(\d+) states generated, (\d+) distinct states found, (\d+) states left on queue", re.MULTILINE)
_VIOLATED = re.compile(r"^Error: (?:Invariant|Action property) (\w+) is violated", re.MULTILINE)
_TEMPORAL = re.compile(r"^PROPERTY (\w+)$", re.MULTILINE)
"""TLC does not say which temporal property was violated; a configuration has one at most, on a line of its own."""
_SETTING = re.compile(r"^(\s*)(\w+) (=|<-) (.*)$", re.MULTILINE)


class TlcError(Exception):
    """TLC ended without a verdict: the model is wrong, or the time was too short."""


@dataclass(frozen=True)
class Verdict:
    """What TLC found: the violated property or None, and how many states it looked at before it ended."""

    violated: str | None
    generated: int
    distinct: int
    seconds: float = 0.0


@dataclass(frozen=True)
class Tlc:
    """Where Java and TLC are, and how long one run may take, in seconds."""

    java: Path
    jar: Path
    timeout_s: float

    async def check(self, module: str, configuration: str) -> Verdict:
        """Check a module of `docs/protocol/` under a configuration's text.

        Raises:
            TlcError: There is no verdict.
        """
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix="aibroker-model-") as folder:
            settings = Path(folder) / "model.cfg"
            settings.write_text(configuration)
            arguments = [*_JVM, f"-Djava.io.tmpdir={folder}", "-cp", str(self.jar), "tlc2.TLC"]
            arguments += ["-nowarning", "-workers", "1", "-metadir", folder, "-config", str(settings), f"{module}.tla"]
            output = await self._run(arguments)
        verdict = read(output, configuration)
        return Verdict(verdict.violated, verdict.generated, verdict.distinct, round(time.monotonic() - began, 1))

    async def _run(self, arguments: list[str]) -> str:
        process = await asyncio.create_subprocess_exec(
            str(self.java), *arguments, cwd=MODELS, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
        )
        try:
            output, _ = await asyncio.wait_for(process.communicate(), self.timeout_s)
        except TimeoutError:
            raise TlcError(f"no verdict within {self.timeout_s:.0f} s") from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        return output.decode()


async def find(environment: Mapping[str, str], logs: Path, timeout_s: float) -> Tlc:
    """Have Java and TLC's jar at hand.

    Raises:
        LocalError: One of them cannot be had.
    """
    with Children(logs) as children:
        [jar] = await jars.provide(JARS, environment, children, print)
    return Tlc(await java.find(environment), jar, timeout_s)


def read(output: str, configuration: str = "") -> Verdict:
    """Find the verdict in what TLC said of a configuration.

    Raises:
        TlcError: There is none.
    """
    states = _STATES.search(output)
    named = _VIOLATED.search(output)
    violated = named[1] if named else None
    if "Error: Temporal properties were violated" in output:
        violated = temporal(configuration) or "a temporal property"
    complete = "Model checking completed. No error has been found." in output
    if states is None or complete == (violated is not None):
        raise TlcError(_why_not(output))
    return Verdict(violated, int(states[1]), int(states[2]))


def temporal(configuration: str) -> str | None:
    """The temporal property that a configuration checks."""
    found = _TEMPORAL.search(configuration)
    return found[1] if found else None


def without_temporal(configuration: str) -> str:
    """The same, checked for safety only."""
    return _TEMPORAL.sub("", configuration)


def configured(configuration: str, **settings: str) -> str:
    """The text of a configuration with other values of constants that it sets.

    Raises:
        KeyError: It does not set one of them.
    """
    known = {found[2] for found in _SETTING.finditer(configuration)}
    if unknown := settings.keys() - known:
        raise KeyError(f"the configuration does not set {', '.join(sorted(unknown))}")
    return _SETTING.sub(
        lambda found: f"{found[1]}{found[2]} {found[3]} {settings.get(found[2], found[4])}", configuration
    )


def _why_not(output: str) -> str:
    lines = output.splitlines()
    first = next((number for number, line in enumerate(lines) if "rror" in line), max(len(lines) - 5, 0))
    return "\n".join(lines[first : first + 12]) or "TLC said nothing"

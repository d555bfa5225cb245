"""What a benchmark runs beside us has a Python environment of its own, so that none of it is a dependency of ours."""

import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path

SCRIPTS = Path(__file__).parent / "peers"
INSTALL_S = 300


async def python_with(cache: Path, name: str, packages: Sequence[str]) -> Path:
    """The interpreter of the environment of that name, which is made once."""
    folder = (cache / name).absolute()
    python, whole = folder / "bin" / "python", folder / "whole"
    if not whole.exists():
        await command(INSTALL_S, sys.executable, "-m", "venv", "--clear", str(folder))
        await command(INSTALL_S, str(python), "-m", "pip", "install", "--quiet", *packages)
        whole.touch()
    return python


async def command(within_s: float, *words: str) -> str:
    """What a command says; its own packages, not ours."""
    process = await asyncio.create_subprocess_exec(
        *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={"PATH": "/usr/bin:/bin"}
    )
    try:
        out, errors = await asyncio.wait_for(process.communicate(), within_s)
    finally:
        if process.returncode is None:
            process.kill()
    if process.returncode:
        raise RuntimeError(f"{words[:3]} ended with {process.returncode}: {errors.decode()[-1_000:]}")
    return out.decode()

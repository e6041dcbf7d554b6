"""The contracts that operators and programs rely on, each held against its snapshot in `contracts/`.

Input: the running program: its commands, a small database, real HTTP answers, real checkpoints, its syntax trees.
Output: per kind one text file, a fact per line, sorted. Invariant: nothing here is written by hand twice, so a fact
changes if and only if the program changes.

Add facts freely, never rename one. After a deliberate change, rewrite the snapshot and commit it with the change:

    ACCEPT_CONTRACTS=1 python -m pytest tests/docs/test_contracts.py
"""

from __future__ import annotations

import ast
import asyncio
import difflib
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from contextlib import closing
from dataclasses import fields
from datetime import timedelta
from functools import cache, partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import pytest
from click.testing import CliRunner
from pydantic import TypeAdapter, ValidationError
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

# Internals. After moving one of them, correct its line here, and nothing below.
import monitor
from monitor import metrics
from monitor.benchmark import bench
from monitor.cli import main
from monitor.config import HttpConfig, load, parse
from monitor.errors import TRANSIENT_ERRORS, dependency_of
from monitor.evaluation.methods import ALWAYS
from monitor.models.build import NETWORKS, STATISTICS, build
from monitor.replay import publish
from monitor.service import health
from monitor.service.pages import pages
from monitor.store import drills, jobs, versions
from monitor.store.engine import AsyncStore
from monitor.store.outbox import Channel
from monitor.store.tables import metadata
from tests import drilled, example_database, labelled_recording
from tests.docs.entries import error_classes, leaves, settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

ROOT = Path(__file__).resolve().parents[2]
SNAPSHOTS = Path(__file__).parent / "contracts"
ACCEPT = "ACCEPT_CONTRACTS"
QUARANTINE_ROOMS = {"stream", "kafka", "decode"}
"""The rooms of `monitor/` whose messages `word: sentence` are reasons for the quarantine."""
NAMES = {
    "turbines": "FLEET", "pumps": "FLEET", "fans": "FLEET", "ops": "CHANNEL",
    "power": "SENSOR", "pitch": "SENSOR", "rotor_speed": "SENSOR", "flow": "SENSOR", "pressure": "SENSOR",
    **dict.fromkeys(ALWAYS, "METHOD"), "plant": "SET",
}  # fmt: skip
"""Names of the examples that stand as keys in a document."""
CONFIG = """
kafka = {{bootstrap = "127.0.0.1:1", topics = ["plant"]}}
fleet = [
    {{name = "turbines", interval = "10m", assets = ["R*"]}},
    {{name = "pumps", interval = "1m", assets = ["pump"], window = 16, model = {{architecture = "pca"}}}},
    {{name = "fans", interval = "1m", assets = ["fan"], window = 16, model = {{max_train = "2s"}}}},
]
notify = [{{name = "ops", url = "http://127.0.0.1:{port}/hook", token = "secret"}}]
"""


# ---------------------------------------------------------------- the example


class Example:
    """A folder with a configuration, a database, two recordings, and everything that ran in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.replay: Any = None
        self.job_words: set[str] = set()
        """Every kind and state of a job that was stored."""
        self.received: list[tuple[dict[str, str], Any]] = []
        """Headers and body of each POST to the webhook."""

    @property
    def url(self) -> str:
        """The database's."""
        return f"sqlite:///{self.folder}/monitor.db"

    def ask(self, *words: str, code: int = 0, **environment: str) -> Any:
        """Run a command with --json and return its document."""
        result = CliRunner().invoke(main, [*words, "--json"], env=environment)
        assert result.exit_code == code, (words, result.output)
        return json.loads(result.stdout)

    def rows(self, query: str) -> list[Any]:
        """Return the first column of a query, from the database as any SQL client sees it."""
        with closing(sqlite3.connect(self.folder / "monitor.db")) as connection:
            return [row[0] for row in connection.execute(query)]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Example]:
    """The example: it costs some seconds, so there is one for all kinds."""
    found = Example(tmp_path_factory.mktemp("contracts"))

    class RecordingHandler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            found.received.append((dict(self.headers), json.loads(body)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_args: object) -> None:
            pass

    with pytest.MonkeyPatch.context() as patch, HTTPServer(("127.0.0.1", 0), RecordingHandler) as server:
        patch.chdir(found.folder)
        for name in [name for name in os.environ if name.startswith("MONITOR_")]:
            patch.delenv(name)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        Path("monitor.toml").touch(0o600)  # it holds a token
        Path("monitor.toml").write_text(CONFIG.format(port=server.server_port))
        # The same alerts as the tests of the commands have, and a channel that is notified of each.
        patch.setattr(example_database, "Commit", partial(example_database.Commit, channels=(Channel("ops"),)))
        asyncio.run(example_database.fill(found.folder / "monitor.db"))
        asyncio.run(example_database.add_data_alerts(found.folder / "monitor.db"))
        for change in ("publish", "request", "take", "finish", "request", "take", "fail"):
            asyncio.run(_step(found.url, change))
            for name in ("kind", "state"):
                found.job_words |= {f"job.{name} | {word}" for word in found.rows(f"SELECT {name} FROM job")}
        files = [str(labelled_recording.write_csv(found.folder / "plant" / f"{name}.csv")) for name in ("pump", "fan")]
        found.replay = found.ask("replay", *files, "--train-rows", "700", "--into", "sqlite:///replay.db")
        yield found
        server.shutdown()
        thread.join()


async def _step(url: str, change: str) -> None:
    """Lead a version to its registration, and the jobs of its fleet through their life."""
    async with AsyncStore(url) as store:
        running = await store.read(jobs.active, "another")
        if change == "publish":
            facts: dict[str, Any] = {"path": "x", "trained_us": 0, "card": {}, "metrics": {}}
            await store.run(versions.publish, version="another-1", fleet="another", **facts)
        elif change == "request":
            await store.run(jobs.request, "another", "me", 0)
        elif change == "take":
            await store.run(jobs.start_for_fleet, "another", "me", "daemon", 0)
        elif running is not None:
            await store.run(jobs.finish if change == "finish" else jobs.fail, running.id, "x", 0)


def shape(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield each key of a document, with the kind of its values."""
    kinds = {bool: "boolean", int: "number", float: "number", str: "string", type(None): "null"}
    if isinstance(value, dict):
        yield path, "object"
        for key, each in value.items():
            yield from shape(each, f"{path}.{NAMES.get(key, key)}" if path else NAMES.get(key, key))
    elif isinstance(value, list):
        yield path, "list"
        for each in value:
            if isinstance(each, dict):
                yield from shape(each, f"{path}[]")
    else:
        yield path, kinds[type(value)]


def keys(where: str, *documents: Any) -> list[str]:
    """Return a line for each key of the documents: where it stands, and which kinds of values it had."""
    found: dict[str, set[str]] = {}
    for document in documents:
        for path, kind in shape(document):
            found.setdefault(path, set()).add(kind)
    return [f"{where} | {path} | {' or '.join(sorted(kinds))}" for path, kinds in found.items() if path]


# ---------------------------------------------------------------- the syntax trees


@cache
def trees() -> dict[Path, ast.Module]:
    """Every module of the product."""
    return {path: ast.parse(path.read_text("utf-8")) for path in (ROOT / "monitor").rglob("*.py")}


def nodes(kind: type[ast.AST], rooms: set[str] | None = None) -> Iterator[Any]:
    """Yield every node of a kind, in some rooms or in all."""
    for path, tree in trees().items():
        if rooms is None or path.relative_to(ROOT / "monitor").parts[0].removesuffix(".py") in rooms:
            yield from (node for node in ast.walk(tree) if isinstance(node, kind))


def texts(rooms: set[str] | None = None) -> Iterator[str]:
    """Yield every text of the product that is no docstring; of an f-string its head, before the first brace."""
    for tree in nodes(ast.Module, rooms):
        passive = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
        passive |= {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values[1:]}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passive:
                yield node.value


def pattern(node: ast.expr) -> str:
    """Return a text as it stands, with `*` for each part that is computed."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(pattern(part) for part in node.values)
    return "*"


# ---------------------------------------------------------------- the kinds


def settings_and_defaults(_made: Example) -> Iterable[str]:
    minimal = parse(
        {
            "kafka": {"bootstrap": "b:9092", "topics": ["t"]},
            "fleet": [{"name": "x", "interval": "10m"}],
            "notify": [{"name": "x", "url": "https://x"}],
        }
    )
    for path, field in settings():
        at: Any = minimal
        for name in path[:-1]:
            at = getattr(at, name)
            at = at[0] if isinstance(at, tuple | list) else at
        value = getattr(at, path[-1]) if field.default_factory else field.default
        shown = str(value) if isinstance(value, timedelta) or type(value).__module__ != "builtins" else repr(value)
        default = "required" if field.is_required() else f"default {shown}"
        computed = " (computed)" if field.default_factory else ""
        limits = [repr(limit) for limit in field.metadata if type(limit).__module__ == "annotated_types"]
        yield " | ".join([".".join(path), default + computed, *offered(field), *sorted(limits)])


def offered(field: Any) -> list[str]:
    """Return the words that a setting takes, as its own error names them."""
    try:
        TypeAdapter(Annotated[field.annotation, "as declared", *field.metadata]).validate_python("no such word")
    except ValidationError as problem:
        for each in problem.errors():
            if "offered" in each.get("ctx", {}):
                return ["one of " + ", ".join(each["ctx"]["offered"])]
    return []


def commands_and_options(_made: Example) -> Iterable[str]:
    groups = [((), main)]
    groups += [
        ((name,), main.get_command(click.Context(main), name)) for name in main.list_commands(click.Context(main))
    ]
    seen = set()
    for path, command in (*groups, *leaves(main)):
        if path in seen:
            continue
        seen.add(path)
        context = click.Context(command, info_name=path[-1] if path else "monitor")
        name = " ".join(("monitor", *path))
        yield f"{name} | {'group' if isinstance(command, click.Group) else 'command'}"
        for parameter in command.params:
            yield f"{name} | {described(parameter, context)}"


def described(parameter: click.Parameter, context: click.Context) -> str:
    """Return one option or argument, with all that a caller can see of it."""
    facts = parameter.to_info_dict()
    words = ["/".join([*parameter.opts, *parameter.secondary_opts])]
    if isinstance(parameter, click.Argument):
        words = [f"argument {parameter.make_metavar(context)}"]
    elif not facts["is_flag"]:
        words.append(parameter.make_metavar(context))
    kind = parameter.type
    if isinstance(kind, click.Choice):
        words.append("one of " + ", ".join(kind.choices))
    if isinstance(kind, click.IntRange | click.FloatRange):
        words.append(f"from {kind.min} to {kind.max}")
    words += [word for word in ("is_flag", "multiple", "required", "hidden") if facts.get(word)]
    default = parameter.get_default(context)
    if isinstance(default, str | int | float | Path):
        words.append(f"default {default}")
    return " | ".join(words)


def json_documents(made: Example) -> Iterable[str]:
    file = str(made.folder / "plant" / "pump.csv")
    kept = {"MONITOR_STORE__URL": f"sqlite:///{made.folder}/replay.db"}
    yield from keys("alerts list", made.ask("alerts", "list"))
    for class_, alert in (("process", "1"), ("data", "3")):
        yield from keys(f"alerts show, class {class_}", made.ask("alerts", "show", alert))
    yield from keys("scores show", made.ask("scores", "show", "R80736"))
    yield from keys("quarantine list", made.ask("quarantine", "list"))
    yield from keys("models list", made.ask("models", "list"), made.ask("models", "list", **kept))
    shown = made.ask("models", "show", "--fleet", "pump", **kept)
    yield from keys("models show", shown | {"card": {}})
    yield from keys("retrain", made.ask("retrain", "turbines"))
    asyncio.run(_store_drill(made))
    yield from keys("drill", made.ask("drill", "turbines", "--stored"))
    # No broker listens at this address, and the findings name that.
    yield from keys("check", made.ask("check", code=1))
    yield from keys("notify test", made.ask("notify", "test"))
    dry = [{**row, "content": None} for row in made.ask("notify", "test", "--dry-run")]  # the receiver's own form
    yield from keys("notify test --dry-run", dry)
    yield from keys("notify status", made.ask("notify", "status"))
    quick = ("--methods", "pca", "--window", "16", "--processes", "1")
    yield from keys("evaluate FILES", made.ask("evaluate", file, *quick, "--policy", "confirm=1 of 1"))
    yield from keys("evaluate", made.ask("evaluate", "--policy", "confirm=1 of 1"))
    yield from keys("replay FILES", made.replay)
    yield from keys("replay FILES --diff", made.ask("replay", file, "--train-rows", "700", "--diff", "confirm=1 of 1"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publish, "publish", _sent)
        yield from keys("replay FILES --publish", made.ask("replay", file, "--publish"))
        patch.setattr(bench, "run", _measured)
        yield from keys("bench", made.ask("bench"))
    names = (case.name for case in bench.make_plan().cases)
    yield from (f"bench | cases[].name = {name}" for name in names if not name.endswith("-cuda"))
    queries = {
        " ".join(path)
        for path, command in leaves(main)
        if any("--json" in parameter.opts for parameter in command.params)
    }
    yield from (f"{name} | has --json" for name in queries)


async def _store_drill(made: Example) -> None:
    """Store a drill of the champion, as a daemon does."""
    async with AsyncStore(made.url) as store:
        champion = await store.read(versions.champion, "turbines")
        assert champion is not None
        facts = drilled.document() | {"fleet": "turbines", "version": champion.version}
        await store.run(
            drills.record, facts, problem=None, topic="plant", pipeline="monitor", at_us=1, requested_by="monitor"
        )


async def _sent(*_arguments: object, **_options: object) -> int:
    """Stand in for Kafka: everything was sent."""
    return 1


async def _measured(plan: Any, _show: object) -> Any:
    """Stand in for minutes of measuring: every figure is 1."""

    def ones(kind: Any, **known: Any) -> Any:
        return kind(**{field.name: "x" if field.type == "str" else 1 for field in fields(kind)} | known)

    return ones(bench.BenchReport, cases=[ones(bench.CaseSummary, name=case.name) for case in plan.cases])


def log_events(_made: Example) -> Iterable[str]:
    levels = {"debug", "info", "warning", "error", "exception", "critical"}
    for call in nodes(ast.Call):
        if isinstance(call.func, ast.Attribute) and isinstance(call.func.value, ast.Name):
            owner, name = call.func.value.id, call.func.attr
            if owner in ("log", "logger") and name in levels:
                yield f"event | {pattern(call.args[0])}"
            if owner == "logs" and name == "get":
                yield f"logger | monitor.{pattern(call.args[0])}"
    for kind in TRANSIENT_ERRORS:
        yield from (f"event | {dependency_of(kind())}_{end}" for end in ("away", "back"))


def metric_names(_made: Example) -> Iterable[str]:
    # In a process of its own: earlier tests have left label values in this one.
    code = f"import {metrics.__name__} as m, prometheus_client as p; print(p.generate_latest(m.registry).decode())"
    page = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    ).stdout  # fmt: skip
    for name, kind in re.findall(r"^# TYPE (\S+) (\w+)$", page, flags=re.MULTILINE):
        if not name.endswith("_created"):
            yield f"{name} | {kind}"
    for name, labels in re.findall(r"^(\w+)\{(.*)\} ", page, flags=re.MULTILINE):
        if name != "monitor_build_info":
            yield f"{name} | {labels}"
    for collector in metrics.registry._collector_to_names:
        labels = getattr(collector, "_labelnames", ())
        if labels:
            yield f"{collector._name} | labels {', '.join(labels)}"


def exit_codes(made: Example) -> Iterable[str]:
    codes = {
        "done": ("alerts", "list"), "not found": ("alerts", "show", "99"), "unknown command": ("no-such-command",),
        "unknown option": ("alerts", "list", "--no-such-option"), "no configuration": ("-c", "none.toml", "check"),
    }  # fmt: skip
    for what, words in codes.items():
        yield f"{what} | exit {CliRunner().invoke(main, words).exit_code}"
    command = dict(leaves(main))["db", "upgrade"]

    def code_of(error: BaseException) -> int:
        def fail() -> None:
            raise error

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(command, "callback", fail)
            return CliRunner().invoke(main, ["db", "upgrade"]).exit_code

    yield f"interrupted | exit {code_of(KeyboardInterrupt())}"
    for kind in error_classes():
        waits = " | waiting helps" if kind.retriable else ""
        yield f"{kind.__name__} | exit {code_of(kind())} | {kind()}{waits}"


def tables(made: Example) -> Iterable[str]:
    revision, *_ = made.rows("SELECT version_num FROM alembic_version")
    yield f"revision | {revision}"
    for dialect in (postgresql.dialect(), sqlite.dialect()):
        for table in metadata.tables.values():
            where = f"{dialect.name} | {table.name}"
            statement = str(CreateTable(table).compile(dialect=dialect))
            yield from (f"{where} | {line.strip().rstrip(',')}" for line in statement.splitlines() if "\t" in line)
            yield from (f"{where} | {CreateIndex(index).compile(dialect=dialect)}" for index in table.indexes)


def webhook(made: Example) -> Iterable[str]:
    made.ask("notify", "test")
    headers, body = made.received[-1]
    for name in ("Authorization", "Content-Type", "Idempotency-Key", "User-Agent"):
        shown = headers[name].replace(body["key"], "KEY").replace(monitor.__version__, "VERSION")
        yield f"header | {name}: {shown}"
    yield from keys("test", body)
    bodies = [json.loads(body) for body in made.rows("SELECT body FROM outbox")]
    for class_ in ("process", "data"):
        yield from keys(f"class {class_}", *(body for body in bodies if body["class"] == class_))
    yield from (f"step | {body['class']} | {body['step']}" for body in bodies)
    yield from (f"key | {body['class']} | {re.sub('[0-9]+', 'N', body['key'])}" for body in bodies)


def checkpoints(made: Example) -> Iterable[str]:
    for folder in made.folder.glob("replay-checkpoints/*"):
        architecture, _, digest = folder.name.rpartition("-")
        assert re.fullmatch("[0-9a-f]{8}", digest)
        yield f"folder | {architecture}-DIGEST"
        yield from (f"{architecture} | file | {file.name}" for file in folder.iterdir())
        card = json.loads((folder / "card.json").read_text("utf-8"))
        yield f"{architecture} | card.json | format = {card['format']}"
        if architecture == "auto":  # the candidates that a slow machine cannot finish, and the chosen one, vary
            card["choice"]["failed"] = {}
            for member in card["members"]:
                member |= {"hyper": {}, "half_life": 1.0}
        yield from keys(f"{architecture} | card.json", card)
    for name in (*NETWORKS, *STATISTICS):
        network = build(name, 2, 16)
        yield from (f"hyper | {name} | {key}" for key in network.hyper)
        yield from (f"weights | {name} | {key}" for key in network.state_dict())
    yield from (f"weights | dense, variational | {key}" for key in build("dense", 2, 16, draws=2).state_dict())


def http_pages(_made: Example) -> Iterable[str]:
    config = HttpConfig(listen=f"127.0.0.1:{_free_port()}")
    state = health.Health()
    with pages(config, state):
        for path in ("/live", "/ready", "/metrics", "/", "/api"):
            status, kind, body = _get(f"http://{config.listen}{path}")
            yield f"{path} | {status} {kind}"
            if kind == "application/json":
                yield from keys(path, json.loads(body))
            for method in ("HEAD", "POST") if status != 404 else ():
                yield f"{method} {path} | {_get(f'http://{config.listen}{path}', method)[0]}"
        state.reason_to_restart = lambda: "of a test"  # type: ignore[method-assign]
        for path in ("/live", "/ready"):
            status, _, body = _get(f"http://{config.listen}{path}")
            yield f"{path}, dead | {status}"
            yield from keys(f"{path}, dead", json.loads(body))
    # Each `found["word"] = sentence` of the module that answers is a word of `missing[].what`.
    tree = trees()[Path(health.__file__)]
    stores = [n for n in ast.walk(tree) if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Store)]
    words = [str(store.slice.value) for store in stores if isinstance(store.slice, ast.Constant)]
    yield from (f"/ready | missing[].what = {word}" for word in words if re.fullmatch("[a-z]+", word))


def _free_port() -> int:
    with HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return server.server_port


def _get(url: str, method: str = "GET") -> tuple[int, str, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=5) as answer:
            return answer.status, answer.headers["Content-Type"], answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers["Content-Type"], error.read().decode()


def environment(made: Example) -> Iterable[str]:
    constants = {
        target.id: pattern(node.value)
        for node in nodes(ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name) and isinstance(node.value, ast.Constant | ast.JoinedStr)
    }

    def name_of(node: ast.expr) -> str:
        return constants.get(node.id, "*") if isinstance(node, ast.Name) else pattern(node)

    def is_environment(node: ast.expr) -> bool:
        return ast.unparse(node) in ("os.environ", "environ")

    found = {text for text in texts() if re.fullmatch("MONITOR_[A-Z_]+", text)}
    for call in nodes(ast.Call):
        is_read = isinstance(call.func, ast.Attribute) and call.func.attr in ("get", "pop")
        if (is_read and is_environment(call.func.value)) or ast.unparse(call.func) == "os.getenv":
            found.add(name_of(call.args[0]))
    found |= {name_of(node.slice) for node in nodes(ast.Subscript) if is_environment(node.value)}
    found |= {name_of(node.left) for node in nodes(ast.Compare) if any(map(is_environment, node.comparators))}
    yield from (name for name in found if "*" not in name)  # the others are of settings
    secret = made.folder / "secret"
    secret.touch(0o600)
    secret.write_text("from the file")
    for name, value in (
        ("MONITOR_DEVICE", "cuda:7"),
        ("MONITOR_KAFKA__GROUP", "from the variable"),
        ("MONITOR_KAFKA__GROUP_FILE", str(secret)),
        ("MONITOR_FLEET__0__WINDOW", "77"),
        ("MONITOR_FLEET__0__ALERTS__RECOVER", "7"),
    ):
        before, after = (load(made.folder / "monitor.toml", environ=given) for given in ({}, {name: value}))
        for key in ("device", "kafka.group", "fleets.window", "fleets.alerts.recover"):
            if (now := _setting(after, key)) != _setting(before, key):
                yield f"{name} = {Path(value).name} | {key} = {now}"


def _setting(config: Any, key: str) -> Any:
    for name in key.split("."):
        config = getattr(config, name)
        config = config[0] if isinstance(config, tuple) else config
    return config


def quarantine_reasons(_made: Example) -> Iterable[str]:
    for text in texts(QUARANTINE_ROOMS):
        if match := re.match("([a-z][a-z0-9_]*): ", text):
            yield match[1]


def stored_words(made: Example) -> Iterable[str]:
    """The words in the database's columns, each seen there, and every enumeration of the product."""
    columns = {
        "alert": ("class", "state", "severity", "kind"), "alert_transition": ("state", "severity"),
        "score": ("verdict",), "model_version": ("state",),
    }  # fmt: skip
    for table, names in columns.items():
        for name in names:
            found = made.rows(f"SELECT DISTINCT {name} FROM {table} WHERE {name} IS NOT NULL")
            yield from (f"{table}.{name} | {word}" for word in found)
    yield from made.job_words
    for node in nodes(ast.ClassDef):
        if any(ast.unparse(base).split(".")[-1] in ("Enum", "IntEnum", "StrEnum", "IntFlag") for base in node.bases):
            members = [
                f"{line.targets[0].id} = {ast.unparse(line.value)}"
                for line in node.body
                if isinstance(line, ast.Assign)
            ]
            yield f"enumeration | {', '.join(members)}"


KINDS: dict[str, Callable[[Example], Iterable[str]]] = {
    "settings": settings_and_defaults,
    "commands": commands_and_options,
    "json": json_documents,
    "log-events": log_events,
    "metrics": metric_names,
    "exit-codes": exit_codes,
    "tables": tables,
    "webhook": webhook,
    "checkpoints": checkpoints,
    "http": http_pages,
    "environment": environment,
    "quarantine-reasons": quarantine_reasons,
    "stored-words": stored_words,
}


# ---------------------------------------------------------------- the snapshot


@pytest.mark.parametrize("kind", KINDS)
def test_the_program_keeps_its_contract(kind: str, made: Example) -> None:
    file = SNAPSHOTS / f"{kind}.txt"
    found = sorted({" ".join(line.split()) for line in KINDS[kind](made)})
    if os.environ.get(ACCEPT):
        SNAPSHOTS.mkdir(exist_ok=True)
        file.write_text("\n".join(found) + "\n", "utf-8")
        pytest.skip(f"{file.name} is rewritten, not checked")
    kept = file.read_text("utf-8").splitlines()
    changes = [
        line
        for line in difflib.unified_diff(kept, found, lineterm="", n=0)
        if not line.startswith(("---", "+++", "@@"))
    ]
    assert found == kept, "\n".join(
        [
            f"the contract `{kind}` has changed (- recorded, + now):",
            *changes,
            "Programs and operators rely on these names. Is the change meant? Add it to CHANGELOG.md and accept it:",
            f"{ACCEPT}=1 python -m pytest {Path(__file__).relative_to(ROOT)} -k {kind}",
        ]
    )


def test_every_snapshot_belongs_to_a_kind() -> None:
    assert {file.name for file in SNAPSHOTS.iterdir()} == {f"{kind}.txt" for kind in KINDS}

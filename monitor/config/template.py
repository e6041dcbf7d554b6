"""Templates of notifications: Jinja2 in a sandbox, checked when the configuration is read.

Input: the text of a template. Output: a compiled template, or ValueError with the line of the mistake. Invariant: a
template reads the variables below and nothing else: no file, no attribute of Python's own, no other template.
A rendering is bounded, because the daemon scores nothing meanwhile: its loops by `MAX_ROUNDS` in total, products and
numbers by `MAX_SIZE`.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from jinja2 import Template
    from jinja2.runtime import Context
    from jinja2.sandbox import SandboxedEnvironment

VARIABLES = {
    "title": "one line: subject and event",
    "body": "the text that is sent without a template",
    "text": "the sentence of the webhook's body",
    "sentence": "the explanation from the evidence; empty if there is none",
    "about": "the asset, or another subject of the alert",
    "duration": "how long the alert has been open, or was: 3 h 20 min",
    "url": "the alert's page; empty without [console] public_url",
    "links": "links of acts: links.acknowledge, links.fault, links.normal; empty without public_url",
    "alerts": "of an incident that is over, and of a digest: list of alerts, each with id, about, severity, state …",
    "key": "the notification's key",
    "step": "firing, critical, closed, worse, reopened, again, flapping, digest, test",
    "id": "the alert's number",
    "class": "process, sensor, data",
    "kind": "of classes sensor and data: stuck, asset_silent …",
    "fleet": "name",
    "asset": "name",
    "sensor": "name, of class sensor",
    "sensors": "list of sensors by their contribution, each with name, share, expected, actual",
    "clearing": "list of the fewest sensors that clear the alarm when expected values replace theirs",
    "severity": "warning, critical",
    "state": "firing, recovering, closed",
    "opened_at": "time, ISO 8601 in UTC",
    "closed_at": "time",
    "at": "time of this step",
    "peak_score": "highest score; 1.0 = threshold",
    "peak_at": "time",
    "n_anomalous": "anomalous windows",
    "version": "of the model",
    "incident": "its number",
    "topic": "of classes sensor and data",
    "partition": "of classes sensor and data",
    "from_offset": "of classes sensor and data",
    "subject": "of classes sensor and data: the field, asset or sensor",
    "n_records": "of classes sensor and data",
    "message": "of classes sensor and data: the event and its fix",
    "n_notifications": "of a digest",
    "n_open": "of a digest",
    "n_closed": "of a digest",
    "steps": "of a digest: number of notifications by step",
}
"""Name → meaning, of everything that a template can use."""


MAX_ROUNDS = 10_000
"""Of all loops in one rendering."""
MAX_SIZE = 65_536
"""Characters or items of a product, and the largest number in an expression, which may be a width."""
_WIDE = re.compile(r"[%:][^%:]{0,4}?\d{6}")
"""A format with a width of six digits."""
_ROUNDS = "rounds "
"""Name of the counter among the variables. No template can spell it."""


@lru_cache(maxsize=1)
def _environment() -> SandboxedEnvironment:
    from jinja2 import StrictUndefined, pass_context  # 60 ms, which a configuration without a template saves
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Bounded(ImmutableSandboxedEnvironment):
        intercepted_binops = frozenset(("*", "**"))

        def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
            sizes = [len(each) if hasattr(each, "__len__") else abs(each) for each in (left, right)]
            size = sizes[0] * sizes[1] if operator == "*" else sizes[0] ** min(sizes[1], 64)
            if size > MAX_SIZE**2 or (size > MAX_SIZE and any(hasattr(each, "__len__") for each in (left, right))):
                raise ValueError(f"{operator} makes more than {MAX_SIZE} items, or too large a number")
            return super().call_binop(context, operator, left, right)

    # Text, not HTML: each channel escapes the result as its receiver needs it.
    environment = Bounded(undefined=StrictUndefined, autoescape=False, trim_blocks=True)
    del environment.globals["lipsum"]
    environment.filters[_ROUNDS] = pass_context(_count_rounds)
    return environment


def _count_rounds(context: Context, items: Iterable[Any]) -> Iterator[Any]:
    """Yield the items of a loop, and count them. Raises ValueError beyond `MAX_ROUNDS`."""
    counter: list[int] = context[_ROUNDS]
    for each in items:
        counter[0] += 1
        if counter[0] > MAX_ROUNDS:
            raise ValueError(f"the loops take more than {MAX_ROUNDS} rounds")
        yield each


def generate(template: str, values: dict[str, Any]) -> Iterator[str]:
    """Yield the parts of a rendering. Raises ValueError and the errors of Jinja2."""
    return compiled(template).generate(values | {_ROUNDS: [0]})


@lru_cache(maxsize=64)
def compiled(template: str) -> Template:
    """Compile a template. Raises ValueError with the line and the mistake."""
    from jinja2 import TemplateSyntaxError
    from jinja2.nodes import Const, Filter, For, Name

    environment = _environment()
    try:
        tree = environment.parse(template)
    except TemplateSyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.message}") from None
    known = VARIABLES.keys() | environment.globals.keys() | {"loop"}
    own = {each.name for each in tree.find_all(Name) if each.ctx in ("store", "param")}
    for each in tree.find_all(Name):
        if each.ctx == "load" and each.name not in known | own:
            raise ValueError(f"line {each.lineno}: there is no variable {each.name}{_meant(each.name)}")
    for const in tree.find_all(Const):
        is_number = isinstance(const.value, int | float) and abs(const.value) > MAX_SIZE
        if is_number or (isinstance(const.value, str) and _WIDE.search(const.value)):
            raise ValueError(f"line {const.lineno}: {const.value!r} is too large; {MAX_SIZE} is the largest number")
    for loop in tree.find_all(For):
        if loop.recursive:
            raise ValueError(f"line {loop.lineno}: a loop must not be recursive")
        loop.iter = Filter(loop.iter, _ROUNDS, [], [], None, None, lineno=loop.lineno)
    try:
        return environment.from_string(tree)
    except TemplateSyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.message}") from None


def _meant(name: str) -> str:
    from difflib import get_close_matches

    found = get_close_matches(name, VARIABLES, n=1, cutoff=0.6)
    return f'; did you mean "{found[0]}"?' if found else "; deploy/README.md lists them"

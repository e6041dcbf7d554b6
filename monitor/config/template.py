"""Templates of notifications: Jinja2 in a sandbox, checked when the configuration is read.

Input: the text of a template. Output: a compiled template, or ValueError with the line of the mistake. Invariant: a
template reads the variables below and nothing else: no file, no attribute of Python's own, no other template.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jinja2 import Template
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


@lru_cache(maxsize=1)
def _environment() -> SandboxedEnvironment:
    from jinja2 import StrictUndefined  # 60 ms, which a configuration without a template saves
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    # Text, not HTML: each channel escapes the result as its receiver needs it.
    return ImmutableSandboxedEnvironment(undefined=StrictUndefined, autoescape=False, trim_blocks=True)


@lru_cache(maxsize=64)
def compiled(template: str) -> Template:
    """Compile a template. Raises ValueError with the line and the mistake."""
    from jinja2 import TemplateSyntaxError
    from jinja2.nodes import Name

    environment = _environment()
    try:
        tree = environment.parse(template)
        made = environment.from_string(template)
    except TemplateSyntaxError as error:
        raise ValueError(f"line {error.lineno}: {error.message}") from None
    known = VARIABLES.keys() | environment.globals.keys() | {"loop"}
    own = {each.name for each in tree.find_all(Name) if each.ctx in ("store", "param")}
    for each in tree.find_all(Name):
        if each.ctx == "load" and each.name not in known | own:
            raise ValueError(f"line {each.lineno}: there is no variable {each.name}{_meant(each.name)}")
    return made


def _meant(name: str) -> str:
    from difflib import get_close_matches

    found = get_close_matches(name, VARIABLES, n=1, cutoff=0.6)
    return f'; did you mean "{found[0]}"?' if found else "; deploy/README.md lists them"

"""Notifications as messages for people, their templates, and the forms of Slack, Teams and Alertmanager."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs

from monitor.config import NotifyConfig
from monitor.config.template import compiled
from monitor.notify import rendering
from monitor.notify.alertmanager import Alertmanager
from monitor.notify.enrich import Enricher
from monitor.notify.rendering import Message, message_of, rendered
from monitor.notify.slack import Slack
from monitor.notify.teams import Teams
from monitor.notify.webhook import Webhook
from monitor.store.outbox import Context

NOW = datetime(2026, 3, 2, 6, 30, tzinfo=UTC)
URL = "https://hooks.example/x"


def alert(**facts: Any) -> dict[str, Any]:
    """Return the payload of an alert of an asset, as the outbox stores it."""
    return {
        "key": "duty:turbines/R1:1:firing",
        "step": "firing",
        "text": "R1 (turbines) is anomalous: …",
        "id": 17,
        "class": "process",
        "fleet": "turbines",
        "asset": "R1",
        "state": "firing",
        "severity": "warning",
        "opened_at": "2026-03-01T11:00:00Z",
        "closed_at": None,
        "at": "2026-03-02T06:20:00Z",
        "peak_score": 2.44,
        "peak_at": "2026-03-01T12:00:00Z",
        "n_anomalous": 3,
        "sensors": [{"name": "power", "share": 0.61, "expected": 560.0, "actual": -3.0, "quantity": "value"}],
        "version": "v1",
        "incident": 9,
        "clearing": None,
    } | facts


def data(**facts: Any) -> dict[str, Any]:
    """Return the payload of an alert about the records."""
    own = {"class": "data", "kind": "asset_silent", "asset": "R1", "topic": "plant", "partition": 0, "sensor": None}
    return alert() | own | {"message": "R1 has sent nothing", "peak_score": None, "sensors": []} | facts


def message(facts: dict[str, Any], template: str | None = None, timezone: str = "UTC") -> Message:
    return message_of(json.dumps(facts).encode(), template, timezone)


def channel(kind: str = "webhook", **settings: Any) -> NotifyConfig:
    return NotifyConfig.model_validate({"kind": kind, "url": URL, "name": "duty", **settings})


# ---------------------------------------------------------------- the message


def test_a_message_says_what_where_since_when_and_how_bad() -> None:
    made = message(alert())
    assert made.title == "Warning: R1 (turbines) is anomalous"
    assert made.text.splitlines() == [
        "power: -3 where 560 was expected (61% of the deviation)",
        "Open since 2026-03-01 11:00 UTC, 19 h 20 min.",
        "Score up to 2.4 where 1.0 is the threshold, severity warning.",
    ]
    assert dict(made.facts)["Duration"] == "19 h 20 min"
    assert made.links == ()


def test_the_sentence_of_the_evidence_replaces_the_figures() -> None:
    made = message(alert(sentence="power fell to −3 kW where 560 ± 90 were expected."))
    assert made.lead == "power fell to −3 kW where 560 ± 90 were expected."


def test_times_are_those_of_the_zone_of_the_channel() -> None:
    assert "2026-03-01 12:00 CET" in message(alert(), timezone="Europe/Berlin").text


@pytest.mark.parametrize(
    ("facts", "title"),
    [
        (alert(severity="critical"), "Critical: R1 (turbines) is anomalous"),
        (alert(step="critical", severity="critical"), "Critical: R1 (turbines) is critically anomalous"),
        (alert(step="closed", closed_at="2026-03-01T12:00:00Z"), "Closed: R1 (turbines) is normal again"),
        (alert(step="worse"), "Warning: R1 (turbines) has become much worse"),
        (data(), "Warning: R1 (turbines): asset silent"),
        (data(step="closed"), "Closed: R1 (turbines): asset silent is over"),
        (data(asset=None, fleet=None), "Warning: plant/0: asset silent"),
        (data(sensor="power", kind="stuck"), "Warning: R1 power (turbines): stuck"),
        ({"step": "test", "text": "x"}, "Test: notifications of alerts arrive here"),
    ],
)
def test_the_title_is_one_line_with_what_and_where(facts: dict[str, Any], title: str) -> None:
    assert message(facts).title == title


def test_the_end_of_an_incident_names_its_alerts() -> None:
    listed = {"about": "R2", "state": "closed", "severity": "warning", "opened_at": "2026-03-01T11:30:00Z", "id": 18}
    made = message(alert(step="closed", closed_at="2026-03-01T12:00:00Z", alerts=[listed | {"about": "R1"}, listed]))
    assert made.title == "Closed: R1 and 1 more (turbines) are normal again"
    assert "Alerts of this incident:" in made.lead
    assert "• R2: closed, warning, since 2026-03-01 11:30 UTC (alert 18)" in made.lead
    assert made.is_over


def test_a_digest_lists_what_is_still_open() -> None:
    listed = {"about": "R2", "state": "firing", "severity": "critical", "opened_at": "2026-03-01T11:30:00Z", "id": 18}
    counts = {"n_notifications": 40, "n_open": 1, "n_closed": 12}
    facts = {"step": "digest", "text": "40 notifications waited", "severity": "critical", "alerts": [listed]}
    made = message(facts | counts)
    assert made.title == "Critical: 40 notifications, 1 alert still open"
    assert "• R2: open, critical" in made.text


def test_a_name_cannot_command_a_terminal_or_break_a_line() -> None:
    made = message(alert(asset="R1\r\nBcc: x\x1b[31m\u202e"))
    assert "\n" not in made.title
    assert made.title.isprintable()


def test_a_long_message_is_cut() -> None:
    made = message(data() | {"message": "x" * 100_000, "asset": "y" * 1000})
    assert len(made.title) <= rendering.MAX_TITLE
    assert len(made.text) <= rendering.MAX_TEXT


# ---------------------------------------------------------------- templates


def test_a_template_makes_the_text() -> None:
    template = "{{ about }} {{ severity }} {{ duration }}{% for s in sensors %} {{ s.name }}{% endfor %}"
    made = message(alert(), template)
    assert made.text == made.lead == "R1 warning 19 h 20 min power"
    assert made.facts == ()
    assert made.title == "Warning: R1 (turbines) is anomalous"


def test_a_template_makes_the_body_of_a_webhook() -> None:
    template = '{"content": {{ title | tojson }}}'
    content = Webhook(channel(template=template)).content(json.dumps(alert()).encode())
    assert json.loads(content) == {"content": "Warning: R1 (turbines) is anomalous"}


def test_every_variable_may_be_used_for_every_alert() -> None:
    from monitor.config.template import VARIABLES

    template = "".join(f"{{{{ {name} }}}}" for name in VARIABLES)
    digest = {"step": "digest", "text": "x", "n_notifications": 1, "n_open": 0, "n_closed": 1}
    with capture_logs() as logged:
        for facts in (alert(), data(), {"step": "test", "text": "x"}, digest):
            assert message(facts, template).text
    assert logged == []


@pytest.mark.parametrize("template", ["{{ sensors[7].name }}", "{{ 1 / 0 }}", "{{ title.x.y }}", "{{ links + 1 }}"])
def test_a_template_that_fails_loses_no_message(template: str) -> None:
    with capture_logs() as logged:
        made = message(alert(), template)
    assert "power: -3" in made.text
    assert [event["event"] for event in logged] == ["template_failed"]


@pytest.mark.parametrize(
    "template",
    [
        "{{ title.__class__.__mro__ }}",
        "{{ ''.__class__.__base__.__subclasses__() }}",
        "{{ sensors.append(1) }}",
        "{{ range(10 ** 9) | list }}",
    ],
)
def test_a_template_stays_in_its_sandbox(template: str) -> None:
    with capture_logs() as logged:
        made = message(alert(), template)
    assert "class" not in made.text
    assert "power: -3" in made.text or made.text == ""
    assert len(logged) == (made.text != "")


@pytest.mark.parametrize(
    "template",
    [
        "{% for i in range(3000) %}{% for j in range(3000) %}{% endfor %}{% endfor %}",
        "{{ title * 65000 }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% for i in [[1] * 999] * 99 %}{% for j in i %}{% endfor %}{% endfor %}",
    ],
)
def test_a_template_cannot_hold_up_the_daemon(template: str) -> None:
    started_s = time.process_time()
    with capture_logs() as logged:
        message(alert(), template)
    assert [event["event"] for event in logged] == ["template_failed"]
    assert time.process_time() - started_s < 1


@pytest.mark.parametrize(
    "expression", ["'%0300000d' % 1", "title.ljust(300000)", "'{:300000}'.format(1)", "title | center(10000000)"]
)
def test_a_template_with_a_huge_width_is_refused(expression: str) -> None:
    with pytest.raises(ValueError, match=r"line 2: .* is too large"):
        compiled(f"\n{{{{ {expression} }}}}")


def test_the_output_of_a_template_is_bounded() -> None:
    text = rendered("{% for i in range(9999) %}{{ title }}{% endfor %}", json.dumps(alert()).encode(), "UTC")
    assert len(text) == rendering.MAX_RENDERED


# ---------------------------------------------------------------- links


def test_links_are_made_only_with_a_public_url() -> None:
    stored, context = json.dumps(alert()), Context(b"k" * 32)
    assert "links" not in json.loads(Enricher().body(stored, context, 0))
    with_links = json.loads(Enricher("https://monitor.plant").body(stored, context, 0))
    assert with_links["url"] == "https://monitor.plant/alerts/17"
    assert list(with_links["links"]) == ["acknowledge", "fault", "normal"]
    assert all(link.startswith("https://monitor.plant/links/v1.17.") for link in with_links["links"].values())


@pytest.mark.parametrize(
    ("facts", "expected"),
    [(alert(step="closed"), ["fault", "normal"]), (data(), ["acknowledge"]), (data(step="closed"), [])],
)
def test_only_acts_that_make_sense_have_links(facts: dict[str, Any], expected: list[str]) -> None:
    body = json.loads(Enricher("https://monitor.plant").body(json.dumps(facts), Context(b"k" * 32), 0))
    assert list(body["links"]) == expected


# ---------------------------------------------------------------- Slack and Teams

WITH_LINKS = {"url": "https://monitor.plant/alerts/17", "links": {"acknowledge": "https://monitor.plant/links/a"}}


def test_slack_gets_blocks_with_buttons() -> None:
    document = json.loads(Slack(channel("slack")).content(json.dumps(alert(**WITH_LINKS)).encode()))
    assert [block["type"] for block in document["blocks"]] == ["header", "section", "section", "actions"]
    buttons = document["blocks"][-1]["elements"]
    assert [button["text"]["text"] for button in buttons] == ["Open the alert", "Acknowledge"]
    assert buttons[1]["url"] == "https://monitor.plant/links/a"
    assert document["text"] == "Warning: R1 (turbines) is anomalous"


def test_text_of_the_plant_addresses_nobody_in_slack() -> None:
    facts = alert(asset="<!channel> & <https://evil.example|x>", sensors=[])
    document = json.loads(Slack(channel("slack")).content(json.dumps(facts).encode()))
    assert document["text"].startswith("Warning: &lt;!channel&gt; &amp; &lt;https")
    mrkdwn = [block["text"]["text"] for block in document["blocks"] if block["type"] == "section" and "text" in block]
    assert all("<" not in text for text in mrkdwn)


def test_slack_takes_no_longer_blocks_than_it_allows() -> None:
    facts = data() | {"message": "x" * 50_000}
    document = json.loads(Slack(channel("slack")).content(json.dumps(facts).encode()))
    assert len(document["blocks"][1]["text"]["text"]) <= 3000
    assert len(document["blocks"][0]["text"]["text"]) <= 150


def test_teams_gets_an_adaptive_card() -> None:
    facts = alert(severity="critical", **WITH_LINKS)
    document = json.loads(Teams(channel("teams")).content(json.dumps(facts).encode()))
    [attachment] = document["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["body"][0]["color"]) == ("AdaptiveCard", "attention")
    assert card["body"][-1]["type"] == "FactSet"
    assert card["actions"][1] == {
        "type": "Action.OpenUrl",
        "title": "Acknowledge",
        "url": "https://monitor.plant/links/a",
    }


def test_plant_text_makes_no_link_in_teams() -> None:
    facts = alert(asset="[x](https://evil.example) **loud**", sensors=[])
    document = json.loads(Teams(channel("teams")).content(json.dumps(facts).encode()))
    title = document["attachments"][0]["content"]["body"][0]["text"]
    assert title.startswith(r"Warning: \[x\](https://evil.example) \*\*loud\*\*")


def test_a_card_stays_below_the_limit_of_teams() -> None:
    facts = data() | {"message": "*" * 50_000}
    assert len(Teams(channel("teams")).content(json.dumps(facts).encode())) < 28_000


# ---------------------------------------------------------------- Alertmanager


def posted(facts: dict[str, Any], **settings: Any) -> list[dict[str, Any]]:
    receiver = Alertmanager(channel("alertmanager", **settings), now=lambda: NOW)
    found: list[dict[str, Any]] = json.loads(receiver.content(json.dumps(facts).encode()))
    return found


def test_labels_identify_the_alert_and_hold_no_score() -> None:
    [found] = posted(alert(url="https://monitor.plant/alerts/17"))
    assert found["labels"] == {
        "alertname": "SensorAnomaly",
        "class": "process",
        "fleet": "turbines",
        "asset": "R1",
        "severity": "warning",
    }
    assert found["annotations"]["summary"] == "Warning: R1 (turbines) is anomalous"
    assert found["annotations"]["peak_score"] == "2.44"
    assert found["generatorURL"] == "https://monitor.plant/alerts/17"
    assert found["startsAt"] == "2026-03-01T11:00:00Z"
    assert found["labels"] == posted(alert(peak_score=9.9, id=18))[0]["labels"]


def test_a_firing_alert_ends_later_than_the_next_post() -> None:
    [found] = posted(alert())
    assert datetime.fromisoformat(found["endsAt"]) == NOW + timedelta(minutes=5)


def test_a_closed_alert_ends_now() -> None:
    [found] = posted(alert(step="closed", closed_at="2026-03-02T06:20:00Z"))
    assert datetime.fromisoformat(found["endsAt"]) == NOW


def test_a_rise_to_critical_resolves_the_warning() -> None:
    warning, critical = posted(alert(step="critical", severity="critical"))
    assert (warning["labels"]["severity"], critical["labels"]["severity"]) == ("warning", "critical")
    assert datetime.fromisoformat(warning["endsAt"]) == NOW < datetime.fromisoformat(critical["endsAt"])
    assert warning["labels"] | {"severity": ""} == critical["labels"] | {"severity": ""}


def test_an_alert_of_the_future_starts_now() -> None:
    [found] = posted(alert(opened_at="2026-03-02T07:00:00Z"))
    assert datetime.fromisoformat(found["startsAt"]) == NOW


def test_labels_of_data_alerts_name_the_kind_and_the_place() -> None:
    [found] = posted(data(subject="R1"))
    assert found["labels"]["alertname"] == "SensorDataProblem"
    assert (found["labels"]["kind"], found["labels"]["topic"]) == ("asset_silent", "plant")
    assert all(isinstance(value, str) for value in found["labels"].values())

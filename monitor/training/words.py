"""Words and limits with which pages and tables show a receipt. Nothing is imported here."""

LEFT_OUT = {
    "too_many_gaps": "with too many gaps",
    "labelled": "labelled fault or ignore, shelved or in maintenance",
    "alerted": "with an alert",
    "reaches_into_held_out": "that reach into held-out time",
    "thinned": "thinned out",
    "suspected_fault_train": "suspected of a fault",
    "suspected_fault_held_out": "suspected of a fault in held-out time",
}
"""Reasons for leaving windows out. Other reasons are shown by their key."""
REASONS = {
    "normal": "nothing speaks against it",
    "labelled_normal": "{source} was labelled normal",
    "accepted": "{source} accepts it as normal",
    "new_normal": "{source} has no label and lasted longer than new_normal, so it is taken as the new normal",
    "open": "{source} is open and has no label",
    "unlabelled": "{source} has no label",
    "shelved": "{source}: a known problem",
    "fault": "{source} is labelled fault",
    "ignore": "{source} is labelled ignore",
    "maintenance": "{source}: it was in maintenance",
    "sensor": "the sensor had an alert of its own",
    "gap": "there are no readings, or too few of them",
    "suspected_fault": "the windows are outliers, so a fault is suspected",
    "reaches_into_held_out": "the windows reach into held-out time",
    "too_old": "there are more held-out windows than are used, and these are the oldest",
}
"""Reasons of the times that a training used or left out, each as a clause that follows "because"."""
NOT_RECONSTRUCTED = 0.1
"""Explained variance below which most faults of a sensor are missed."""


def why(reason: str, source: str = "", number: int | None = None) -> str:
    """Return the sentence of a reason. `source`, `number`: the alert, label, shelf or maintenance behind it."""
    name = f"{source} {number}" if number is not None else source or "it"
    return REASONS.get(reason, reason.replace("_", " ")).format(source=name)


USES = {"trained": "trained", "held_out": "held out", "left_out": "left out"}
"""Use of a time in the receipt → its word."""
SOURCES = {"accepted": "a label", "shelved": "a shelf", "maintenance": "a plan"}
"""Reason → the kind of thing behind it, where it is no alert."""


def why_in_total(reason: str) -> str:
    """Return the clause of a reason for all of its times together."""
    return why(reason, SOURCES.get(reason, "an alert"))

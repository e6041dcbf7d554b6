"""Words and limits with which pages and tables show a receipt. Nothing is imported here."""

LEFT_OUT = {
    "too_many_gaps": "with too many gaps",
    "labelled": "with an alert labelled fault or ignore",
    "alerted": "with an alert",
    "reaches_into_held_out": "that reach into held-out time",
    "thinned": "thinned out",
    "suspected_fault_train": "suspected of a fault",
    "suspected_fault_held_out": "suspected of a fault in held-out time",
}
"""Reasons for leaving windows out. Other reasons are shown by their key."""
NOT_RECONSTRUCTED = 0.1
"""Explained variance below which most faults of a sensor are missed."""

"""The order of a training survives its way to the training process, with the evidence of confirmed faults."""

from __future__ import annotations

import msgspec

from monitor.lifecycle.training_process import TrainingOrder
from monitor.types import ConfirmedFault


def test_evidence_of_faults_survives_the_way_to_the_process() -> None:
    fault = ConfirmedFault(7, "P-101", 1_772_323_200_000_000, ("flow",), "bearing", (b"\x01\x00\xff", b"\x01"))
    order = TrainingOrder(config="monitor.toml", fleet="pumps", sensors=("flow",), faults=[fault])
    sent = msgspec.json.encode(order)
    assert b"\n" not in sent
    assert msgspec.json.decode(sent, type=TrainingOrder) == order

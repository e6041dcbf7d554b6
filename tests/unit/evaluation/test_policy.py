from __future__ import annotations

import pytest

from monitor.evaluation.policy import PolicyChange
from monitor.stream.alerting import AlertPolicy

BASE = AlertPolicy(3, 5, 6)


@pytest.mark.parametrize(
    ("text", "policy", "name"),
    [
        ("confirm=5 of 8, recover=12", AlertPolicy(5, 8, 12), "confirm=5 of 8, recover=12"),
        ("recover = 2", AlertPolicy(3, 5, 2), "recover=2"),
        ("1 of 1", AlertPolicy(1, 1, 6), "confirm=1 of 1"),
        ("2/4,recover=3", AlertPolicy(2, 4, 3), "confirm=2 of 4, recover=3"),
    ],
)
def test_missing_parameters_stay_unchanged(text: str, policy: AlertPolicy, name: str) -> None:
    change = PolicyChange.parse(text)
    assert change.apply_to(BASE) == policy
    assert str(change) == name


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("confirm=8 of 5", r'confirm "8 of 5" can never be met; write "5 of 8"'),
        ("confirm=often", r'confirm "often" is not "m of n"; write "3 of 5"'),
        ("1 of 1000000", r'confirm "1 of 1000000" reaches back too far; write "m of n" with 1 ≤ m ≤ n ≤ 1000'),
        ("recover=0", r'recover "0" is not a number of normal windows; write 1 to 1000'),
        ("recover=soon", r'recover "soon"'),
        ("budget=2/week", r'"budget" is no alert parameter \(valid: confirm, recover\); write "confirm='),
        ("3 of 5, confirm=2 of 4", "confirm stands twice"),
        ("", r'confirm ""'),
    ],
)
def test_a_wrong_policy_is_rejected_with_a_fix(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PolicyChange.parse(text)

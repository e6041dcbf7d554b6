"""The messages of errors, in this process and after pickling."""

from __future__ import annotations

import copy
import pickle

import pytest

from monitor import errors
from monitor.errors import MonitorError, NotFound

ALL = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, MonitorError)]


def test_a_message_is_the_headline_and_the_detail() -> None:
    assert str(NotFound("alert 17")) == "Not found: alert 17"
    assert str(NotFound()) == "Not found"
    assert NotFound("alert 17").detail == "alert 17"


@pytest.mark.parametrize("error", ALL)
def test_an_error_keeps_its_message_in_another_process(error: type[MonitorError]) -> None:
    for made in (error("pump 3: too short"), error()):
        for again in (pickle.loads(pickle.dumps(made)), copy.copy(made)):
            assert type(again) is error
            assert str(again) == str(made)
            assert (again.detail, again.args) == (made.detail, made.args)

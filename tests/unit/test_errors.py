"""An error is a sentence, wherever it goes."""

from __future__ import annotations

import copy
import pickle

import pytest

from monitor import errors
from monitor.errors import MonitorError, NotFound

ALL = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, MonitorError)]


def test_the_headline_is_the_classs_and_the_detail_follows_it() -> None:
    assert str(NotFound("alert 17")) == "Not found: alert 17"
    assert str(NotFound()) == "Not found"
    assert NotFound("alert 17").detail == "alert 17"


@pytest.mark.parametrize("error", ALL)
def test_an_error_says_the_same_in_another_process(error: type[MonitorError]) -> None:
    for said in (error("pump 3: too short"), error()):
        for again in (pickle.loads(pickle.dumps(said)), copy.copy(said)):
            assert type(again) is error
            assert str(again) == str(said)
            assert (again.detail, again.args) == (said.detail, said.args)

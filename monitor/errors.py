"""The error tree: a class for each reaction.

    MonitorError                            exit 1
    ├── ConfigError                         exit 2   the operator's file or environment
    ├── DecodeError                                  quarantine the record and go on
    ├── BadRecording                        exit 2   the file with the recording
    ├── BadArgument                                  the caller of the library: it is a ValueError, too
    ├── QuarantineLimit                     exit 3   too many bad records: the producer or the format setting
    ├── SourceUnavailable   (transient)              wait and resume
    ├── SourceRefused                       exit 3   password, topic, permission, retention
    ├── StoreUnavailable    (transient)              hold the batch and pause the source
    ├── StoreLocked                         exit 3   another daemon owns this SQLite file
    ├── StoreInUse                          exit 3   stop every daemon before `monitor db upgrade`
    ├── SchemaMismatch                      exit 4   run `monitor db upgrade`
    ├── StoreDamaged                        exit 1   restore a backup, or correct store.url
    ├── StoreRefused                        exit 1   the server's message says why: its settings, its extensions
    ├── InvariantBroken                              a defect of monitor: the daemon stops, the data stay, report it
    ├── Fenced                                       another daemon took the partition over: drop its state
    ├── ModelsChanged                                another daemon activated a version: load it, score again
    ├── SensorsChanged                               a fleet's list of sensors grew: begin its windows again
    ├── NoChampion                                   verdict "unscored"
    ├── CheckpointDamaged                            keep the present champion
    ├── CheckpointUnavailable (transient)            hold the batch and pause the source
    ├── NotEnoughData                                keep the present champion; the detail says how much is missing
    ├── TrainingDiverged                             keep the present champion
    ├── NotFound                            exit 1
    └── Conflict                            exit 1
        └── WrongState                      exit 1   an operator's act that the alert's state does not allow

Input: a detail, passed to the constructor. Output: a message for operators: the class's docstring, a colon and the
detail. Invariant: an error of a library is translated in the package that uses the library, `from` its cause.
"""

from __future__ import annotations

from typing import ClassVar


class MonitorError(Exception):
    """monitor could not do this"""

    exit_code: ClassVar[int] = 1
    retriable: ClassVar[bool] = False
    """The error may end by itself: wait and repeat."""

    def __init__(self, detail: str = "") -> None:
        # The detail alone: unpickling calls the constructor with these arguments, and must not repeat the headline.
        super().__init__(detail)
        self.detail = detail

    def __str__(self) -> str:
        headline = (type(self).__doc__ or "").strip()
        return f"{headline}: {self.detail}" if self.detail else headline


class ConfigError(MonitorError):
    """The configuration cannot be used"""

    exit_code = 2


class DecodeError(MonitorError):
    """The record could not be read"""


class BadRecording(MonitorError):
    """The recording cannot be used"""

    exit_code = 2


class BadArgument(MonitorError, ValueError):
    """The argument cannot be used"""


class QuarantineLimit(MonitorError):
    """Too many records could not be read"""

    exit_code = 3


class SourceUnavailable(MonitorError):
    """The broker did not answer"""

    retriable = True


class SourceRefused(MonitorError):
    """The broker refused"""

    exit_code = 3


class StoreUnavailable(MonitorError):
    """The database did not answer"""

    retriable = True


class StoreLocked(MonitorError):
    """Another daemon already uses this SQLite database"""

    exit_code = 3


class StoreInUse(MonitorError):
    """A running daemon uses the database"""

    exit_code = 3


class SchemaMismatch(MonitorError):
    """The database has another schema version; run `monitor db upgrade`"""

    exit_code = 4


class StoreDamaged(MonitorError):
    """The database is damaged or is no database of monitor; restore a backup, or correct store.url"""


class StoreRefused(MonitorError):
    """The database refused, and waiting will not help"""


class InvariantBroken(MonitorError):
    """The database refused what should be impossible; this is a defect, and waiting will not help"""


class Fenced(MonitorError):
    """Another daemon took this over"""


class ModelsChanged(MonitorError):
    """A model version was activated meanwhile"""


class SensorsChanged(MonitorError):
    """The list of sensors of a fleet has changed"""


class NoChampion(MonitorError):
    """There is no model for this fleet yet"""


class CheckpointDamaged(MonitorError):
    """The checkpoint cannot be read"""


class CheckpointUnavailable(MonitorError):
    """The checkpoint's files cannot be read now"""

    retriable = True

    def __init__(self, detail: str = "", waiting_for: str = "") -> None:
        """`waiting_for`: a sentence that names the version and the remedy. `/ready` shows it, so it has no path."""
        super().__init__(f"{detail}. {waiting_for}" if waiting_for else detail)
        self.waiting_for = waiting_for


class NotEnoughData(MonitorError):
    """There is not enough healthy data to train on yet"""


class TrainingDiverged(MonitorError):
    """Training diverged with every seed that was tried"""


class NotFound(MonitorError):
    """Not found"""


class Conflict(MonitorError):
    """This is already under way"""


class WrongState(Conflict):
    """The present state does not allow this"""


TRANSIENT_ERRORS = (StoreUnavailable, SourceUnavailable, CheckpointUnavailable)
"""Errors that end without an operator: the daemon keeps its state and tries again."""


def dependency_of(error: MonitorError) -> str:
    """Name the dependency behind a transient error, as in the log events `database_away` and `database_back`."""
    return {StoreUnavailable: "database", SourceUnavailable: "broker"}.get(type(error), "checkpoint")

"""Fleets and assets: an asset's name → its fleet, and its number within the shard.

A *token* is an asset's name as a record spells it: a text or a whole number in the payload, or Kafka's key as bytes.
Invariant: an asset belongs to the first fleet, in the order of the configuration, whose topics and asset globs match.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from fnmatch import translate
from typing import TYPE_CHECKING

import numpy as np

from monitor.decode.formatting import describe_value, quote
from monitor.decode.keys import key_text
from monitor.errors import DecodeError
from monitor.printable import name_problem, normal_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from monitor.types import Int32

Token = str | int | bytes

_MAX_UNREGISTERED = 16_384
"""Tokens remembered besides those of registered assets: a producer that invents names must not fill the memory."""


class Growth(enum.Enum):
    """The origin of a fleet's sensors."""

    LISTED = "listed"
    """In the configuration. Other fields are ignored."""
    LEARNING = "learning"
    """Learnt from the records, and no model exists yet: a new sensor is added."""
    LEARNT = "learnt"
    """Learnt, and used by a model. A new sensor is reported, and learnt by the next training."""


@dataclass(frozen=True, slots=True)
class Fields:
    """`[kafka.fields]` joined with `[fleet.fields]`: config/fields.py says what each key means."""

    asset: tuple[str, ...] | None = None
    time: tuple[str, ...] | None = None
    values: tuple[str, ...] | None = None
    ignore: tuple[str, ...] | None = None
    sensor: tuple[str, ...] | None = None
    value: tuple[str, ...] | None = None
    items: str | None = None
    columns: tuple[str, ...] | None = None
    timezone: str = "UTC"
    time_format: str = "auto"
    enum: tuple[tuple[str, float], ...] | None = None
    missing: tuple[float | str, ...] | None = None
    circular: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class FleetSchema:
    """The part of a fleet's configuration that decoding needs."""

    name: str
    interval_us: int
    """Width of a cell of the sampling grid."""
    topics: tuple[str, ...] | None = None
    """None = every topic."""
    assets: tuple[str, ...] = ("*",)
    """Globs, case-sensitive."""
    sensors: tuple[str, ...] | None = None
    """Columns of `Readings.values`. None = not known yet: learnt from the records."""
    max_assets: int | None = None
    """Assets of one shard. None = any number. See admission.py."""
    fields: Fields = Fields()
    """The places of asset, time and values in a record."""
    growth: Growth = Growth.LISTED
    """What becomes of a sensor that `sensors` lacks."""

    @property
    def is_learning(self) -> bool:
        """Whether a new sensor is added to `sensors`."""
        return self.sensors is None or self.growth is Growth.LEARNING


class AssetIndex:
    """The assets of one shard, numbered from 0 by their first accepted reading.

    Where registration is deferred (`admission.py`), a new name has its number for one batch only, unless it is
    committed. Committed numbers never change.
    """

    __slots__ = ("_defers_registration", "_numbers", "n_registered", "names")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names: list[str] = list(names)
        self._numbers: dict[Token, int] = {name: number for number, name in enumerate(self.names)}
        self._defers_registration = False
        self.n_registered = len(self.names)
        """Number of committed names, where registration is deferred."""

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, token: Token) -> bool:
        return token in self._numbers

    def add(self, token: Token) -> int:
        """Return the number of an asset. A new asset gets the next number. Raises DecodeError: bad_asset."""
        number = self._numbers.get(token)
        if number is None:
            name = asset_name(token)
            number = self._numbers.get(name)
            if number is None:
                number = len(self.names)
                self.names.append(name)
                self._numbers[name] = number
            self._numbers[token] = number  # so that this spelling is found at once
        return number

    def numbers(self, tokens: Sequence[Token]) -> Int32:
        """Return the numbers [N] of known tokens. Raises KeyError at a token that was never added."""
        return np.fromiter(map(self._numbers.__getitem__, tokens), np.int32, len(tokens))

    @property
    def n_tokens(self) -> int:
        """Number of known spellings."""
        return len(self._numbers)

    def defer_registration(self) -> None:
        """From now on forget a new name with the next batch, unless it is committed."""
        self._defers_registration = True
        self.n_registered = len(self.names)

    def commit(self, numbers: Sequence[int]) -> Int32:
        """Register these of the new names, in this order, and forget the others.

        Returns a table [A] from the former numbers to the final ones, -1 = forgotten.
        """
        first = self.n_registered
        table = np.full(len(self.names), -1, np.int32)
        table[:first] = np.arange(first)
        table[list(numbers)] = np.arange(first, first + len(numbers))
        if len(self.names) > first:
            holds = table.tolist()
            self._numbers = {token: holds[n] for token, n in self._numbers.items() if holds[n] >= 0}
            self.names[first:] = [self.names[number] for number in numbers]
        self.n_registered = len(self.names)
        return table

    def forget_unregistered(self) -> None:
        """Forget the names of the previous batch that were not committed."""
        if self._defers_registration and len(self.names) > self.n_registered:
            self.commit(())


class Router:
    """Finds the fleet of a token among the fleets of one topic, and remembers it."""

    __slots__ = ("_fleets", "_topic", "has_one_fleet", "known", "numbers")

    def __init__(self, fleets: Sequence[FleetSchema], topic: str, fields: Fields | None = None) -> None:
        """`fields`: only the fleets with these fields. None = all."""
        self.numbers = [
            i
            for i, f in enumerate(fleets)
            if (f.topics is None or topic in f.topics) and (fields is None or f.fields == fields)
        ]
        """Numbers of the fleets that read this topic."""
        self.has_one_fleet = len(self.numbers) == 1
        """True = every asset of the topic belongs to the same fleet, or to none."""
        self.known: dict[Token, int] = {}
        """Token → number of its fleet."""
        self._topic = topic
        self._fleets = [
            (i, fleets[i].name, re.compile("|".join(translate(normal_name(glob)) for glob in fleets[i].assets)))
            for i in self.numbers
        ]

    def fleet_of(self, token: Token | None) -> int:
        """Return the number of the token's fleet. Raises DecodeError: missing_asset, bad_asset, no_fleet."""
        if token is None:
            raise DecodeError('missing_asset: neither an "asset" field nor a Kafka key says which asset this is')
        number = self.known.get(token)
        if number is None:
            name = asset_name(token)
            for number, _, globs in self._fleets:  # noqa: B007  # used below
                if globs.match(name):
                    break
            else:
                raise DecodeError(self._no_fleet(name))
            self.known[token] = number
        return number

    def forget_unregistered(self, assets: Sequence[AssetIndex]) -> None:
        """Forget the tokens without an asset if there are too many. Called before each batch. `assets`: by fleet."""
        if len(self.known) > _MAX_UNREGISTERED + sum(index.n_tokens for index in assets):
            self.known = {token: number for token, number in self.known.items() if token in assets[number]}

    def foreign(self, tokens: set[Token], fleet: int) -> set[Token]:
        """Return the tokens that are not valid names of assets of this fleet."""
        if set(map(self.known.get, tokens)) == {fleet}:  # the usual case, without a line of Python per token
            return set()
        return {token for token in tokens if not self._belongs(token, fleet)}

    def _belongs(self, token: Token, fleet: int) -> bool:
        try:
            return self.fleet_of(token) == fleet
        except DecodeError:
            return False

    def _no_fleet(self, name: str) -> str:
        if not self._fleets:
            return f"no_fleet: no fleet takes topic {quote(self._topic)}; add it to a fleet's topics"
        names = ", ".join(fleet for _, fleet, _ in self._fleets)
        return f"no_fleet: asset {quote(name)} matches the assets of no fleet of this topic ({names}); widen a glob"


def asset_name(token: Token) -> str:
    """Return the asset's name as it is stored. Raises DecodeError: bad_asset."""
    if isinstance(token, bytes):
        text = key_text(token)
        if text is None:
            raise DecodeError(
                f"bad_asset: the Kafka key {describe_value(token)} is not UTF-8; send the asset's name as key or field"
            )
        name = text
    else:
        name = token if isinstance(token, str) else str(token) if abs(token) < 10**100 else ""
    name = normal_name(name)
    if (problem := name_problem(name)) is not None:
        raise DecodeError(
            f"bad_asset: {quote(name)} is not an asset's name, as it {problem}; an asset's name has 1 to 128 letters, "
            "digits, signs and blanks between them"
        )
    return name

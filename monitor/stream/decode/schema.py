"""Whose record it is: an asset's name → its fleet, and its number within the lane.

A *token* is how a record spells its asset: a text or a whole number in the payload, or Kafka's key as bytes.
The law: the first fleet, in the order of the configuration, whose topics and asset globs both match.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import translate
from typing import TYPE_CHECKING, Final

import numpy as np

from monitor.errors import DecodeError
from monitor.stream.decode.words import describe, quote

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from monitor.types import Int32

Token = str | int | bytes

ASSET_NAME: Final = re.compile(r"[A-Za-z0-9_.:/ -]{1,128}")
_MAX_CACHED = 250_000
"""Tokens remembered before the cache starts anew: a producer that invents names must not eat the memory."""


@dataclass(slots=True)
class FleetSchema:
    """What decoding must know of a fleet. One object per fleet, shared by the decoders of all partitions."""

    name: str
    interval_us: int
    """Width of a cell of the sampling grid."""
    topics: tuple[str, ...] | None = None
    """None = every topic."""
    assets: tuple[str, ...] = ("*",)
    """Globs, case-sensitive."""
    sensors: tuple[str, ...] | None = None
    """Columns of `Readings.values`. None = not known yet: learnt from the first batch that has any."""
    learnt: bool = False
    """True once `sensors` came from records and not from the configuration: worth persisting."""


class AssetIndex:
    """The assets of one lane, numbered from 0 by their first accepted reading. Numbers are never reused."""

    __slots__ = ("_numbers", "names")

    def __init__(self, names: Iterable[str] = ()) -> None:
        self.names: list[str] = list(names)
        self._numbers: dict[Token, int] = {name: number for number, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, token: Token) -> bool:
        return token in self._numbers

    def add(self, token: Token) -> int:
        """The number of an asset; a new one gets the next."""
        number = self._numbers.get(token)
        if number is None:
            name = asset_name(token)
            number = self._numbers.get(name)
            if number is None:
                number = len(self.names)
                self.names.append(name)
                self._numbers[name] = number
            self._numbers[token] = number  # so that this spelling is found at once next time
        return number

    def numbers(self, tokens: Sequence[Token]) -> Int32:
        """Numbers [N] of known tokens. Raises KeyError at a token never added."""
        return np.fromiter(map(self._numbers.__getitem__, tokens), np.int32, len(tokens))


class Router:
    """Finds the fleet of a token among the fleets that take one topic, and remembers it."""

    __slots__ = ("_fleets", "_topic", "is_plain", "known", "numbers")

    def __init__(self, fleets: Sequence[FleetSchema], topic: str) -> None:
        self.numbers = [i for i, f in enumerate(fleets) if f.topics is None or topic in f.topics]
        """Which of the fleets take this topic."""
        self.is_plain = len(self.numbers) == 1
        """Only one fleet can be meant, whatever the asset."""
        self.known: dict[Token, int] = {}
        """Token → number of its fleet."""
        self._topic = topic
        self._fleets = [
            (i, fleets[i].name, re.compile("|".join(translate(glob) for glob in fleets[i].assets)))
            for i in self.numbers
        ]

    def fleet_of(self, token: Token | None) -> int:
        """Number of the fleet. Raises DecodeError: missing_asset, bad_asset, no_fleet."""
        if token is None:
            msg = 'missing_asset: neither an "asset" field nor a Kafka key says which asset this is'
            raise DecodeError(msg)
        number = self.known.get(token)
        if number is None:
            name = asset_name(token)
            for number, _, globs in self._fleets:  # noqa: B007  # used below
                if globs.match(name):
                    break
            else:
                raise DecodeError(self._no_fleet(name))
            if len(self.known) >= _MAX_CACHED:
                self.known.clear()
            self.known[token] = number
        return number

    def strangers(self, tokens: set[Token], fleet: int) -> set[Token]:
        """Those tokens that are not good names of assets of this fleet."""
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
    """The asset's name as it is stored. Raises DecodeError: bad_asset."""
    if isinstance(token, bytes):
        try:
            name = token.decode()
        except UnicodeDecodeError:
            msg = f"bad_asset: the Kafka key {describe(token)} is not UTF-8; send the asset's name as key or field"
            raise DecodeError(msg) from None
    else:
        name = token if isinstance(token, str) else str(token) if abs(token) < 10**100 else ""
    if ASSET_NAME.fullmatch(name) is None:
        msg = f"bad_asset: {quote(name)} is not an asset's name: 1 to 128 letters, digits, blanks or any of _ . : / -"
        raise DecodeError(msg)
    return name

"""Decoding: bytes → columns of readings. Read decoder.py first, then document.py, which defines the wire formats.

    decoder.py     a batch → `Decoded`: groups the records, tries the fast parsers, decodes the rest one by one, joins
    document.py    the definition: any record → asset, times, values, or the reason for the quarantine
    formats/       wire formats: bytes → documents
    payload.py     bytes → one object of JSON or MessagePack, within limits
    readings.py    fast parser: single readings, wide or flat
    blocks.py      fast parser: raw float32 blocks
    column_readings.py  fast parser: single readings of one flat Avro schema
    columns.py     the data that decoder.py and the fast parsers exchange
    schema.py      fleets, assets, and the fleet of an asset
    admission.py   admission of new assets to a shard
    timestamps.py  event times → microseconds
    time_texts.py  dates in the orders that people write → microseconds
    zones.py       local times of a time zone → UTC
    formatting.py  bad values as text
    encode.py      the other direction: readings → records

Input: a `RecordBatch`. Output: `Readings` per fleet, and `Quarantined` records. Invariant: no bytes raise an exception,
and the result for a record never depends on its neighbours.
"""

from monitor.decode.decoder import Decoded, Decoder
from monitor.decode.encode import block_msgpack, reading_json
from monitor.decode.schema import AssetIndex, FleetSchema

__all__ = ["AssetIndex", "Decoded", "Decoder", "FleetSchema", "block_msgpack", "reading_json"]

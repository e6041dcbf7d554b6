"""Decoding: bytes → columns of readings. Read decoder.py first, then mapping.py and shapes.py.

    record → (formats/) documents → (shapes.py, mapping.py) rows of asset, time and cells → (cells.py) columns

    decoder.py     a batch → `Decoded`: groups the records, tries the fast parsers, decodes the rest one by one, joins
    formats/       wire formats: bytes → documents
    payload.py     bytes → objects of JSON or MessagePack, within limits
    shapes.py      the structures of documents that are recognised: nested values, long format, envelopes, …
    mapping.py     documents → rows, by `[kafka.fields]` or by their structure: the definition
    document.py    documents that are blocks: many readings of one asset as columns
    names.py       usual names of asset, time, values and identifiers
    keys.py        Kafka's key → text
    cells.py       one value as it is written → a number, missing, or unreadable
    notes.py       findings about accepted records
    fast_parsers.py  the fast parsers of a fleet, and their order
    readings.py    fast parser: single readings with fixed places
    blocks.py      fast parser: raw float32 blocks
    column_readings.py  fast parser: single readings of one flat Avro schema
    columns.py     the data that decoder.py and the fast parsers exchange
    joining.py     columns of all parsers → readings in offset order
    schema.py      fleets, assets, and the fleet of an asset
    admission.py   admission of new assets to a shard
    timestamps.py  event times → microseconds
    time_texts.py  dates in the orders that people write → microseconds
    zones.py       local times of a time zone → UTC
    formatting.py  bad values as text
    encode.py      the other direction: readings → records

Input: a `RecordBatch`. Output: `Readings` per fleet, `Quarantined` records, and `Notice`s about accepted ones.
Invariant: no bytes raise an exception, and the result for a record never depends on its neighbours.
"""

from monitor.decode.decoder import Decoded, Decoder
from monitor.decode.encode import block_msgpack, reading_json
from monitor.decode.schema import AssetIndex, FleetSchema

__all__ = ["AssetIndex", "Decoded", "Decoder", "FleetSchema", "block_msgpack", "reading_json"]

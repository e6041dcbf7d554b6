"""Bytes → columns of readings. Read decoder.py first, then document.py, which defines the wire formats.

    decoder.py    a batch → `Decoded`: splits, tries the fast shapes, sends the rest the long way, joins
    document.py   the definition: any record → asset, times, values, or the reason why not
    payload.py    bytes → one object of JSON or MessagePack, within limits
    readings.py   fast: single readings, wide or flat
    blocks.py     fast: raw float32 blocks
    columns.py    what the ways of decoding hand to each other
    schema.py     fleets, assets, and which fleet an asset belongs to
    admission.py  which new assets a lane lets in
    times.py      event times → microseconds
    words.py      how a bad value is shown in a reason
    encode.py     the other direction: readings → records

Enters a `RecordBatch`, leave `Readings` per fleet and `Quarantined` records. The law: no bytes raise an exception,
and what becomes of a record never depends on its neighbours.
"""

from monitor.decode.decoder import Decoded, Decoder, Format
from monitor.decode.encode import block_msgpack, reading_json
from monitor.decode.schema import AssetIndex, FleetSchema

__all__ = ["AssetIndex", "Decoded", "Decoder", "FleetSchema", "Format", "block_msgpack", "reading_json"]

"""The messages of real producers: each is read right at the first try, or refused with the configuration that reads it.

Names and structures are those of the products and formats, values are invented. A case says which sensors its fleet
lists (none: they are learnt), the key and headers of the message, and the readings that it must give.
"""

from __future__ import annotations

import json
import re
import tomllib
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from monitor.decode import Decoder, FleetSchema
from monitor.decode.schema import Fields
from monitor.types import Partition, RecordBatch

T = 1_790_000_000
"""2026-09-21T14:13:20Z, the usual event time in seconds."""
ISO = "2026-09-21T14:13:20"
Readings = dict[tuple[str, int], dict[str, float]]
"""(asset, seconds) → sensor → value."""


@dataclass(frozen=True)
class Case:
    """A message and its meaning."""

    value: Any
    """Bytes, a text, or what becomes JSON."""
    expected: Readings
    key: bytes | None = b"m1"
    headers: tuple[tuple[str, bytes], ...] = ()
    sensors: tuple[str, ...] | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    """`[kafka.fields]`."""
    refused: str = ""
    """The word of the reason, where the message is refused without configuration."""
    stamp_s: int = T + 5


def one(asset: str, at: int = T, **values: float) -> Readings:
    return {(asset, at): values}


LISTED = ("temp", "press")
BOTH = {"temp": 50.1, "press": 3.0}
TAKEN: dict[str, Case] = {
    # ------------------------------------------------------------ our own layouts
    "wide": Case({"ts": T, "asset": "R1", "sensors": BOTH}, one("R1", **BOTH)),
    "flat": Case({"ts": T, **BOTH}, one("m1", **BOTH)),
    "block of columns": Case(
        {"ts": [T, T + 10], "sensors": {"temp": [50.1, 50.2], "press": [3.0, None]}},
        {("m1", T): BOTH, ("m1", T + 10): {"temp": 50.2}},
    ),
    "columns beside a list of times": Case(
        {"time": [T, T + 10], "temp": [50.1, 50.2]}, {("m1", T): {"temp": 50.1}, ("m1", T + 10): {"temp": 50.2}}
    ),
    "columns in values": Case(
        {"timestamps": 1, "time": [T, T + 10], "values": {"temp": [50.1, 50.2]}},
        {("m1", T): {"temp": 50.1}, ("m1", T + 10): {"temp": 50.2}},
    ),
    # ------------------------------------------------------------ IoT platforms and gateways
    "ThingsBoard array": Case(
        [{"ts": T * 1000, "values": BOTH}, {"ts": (T + 10) * 1000, "values": {"temp": 50.2, "press": 3.01}}],
        {("m1", T): BOTH, ("m1", T + 10): {"temp": 50.2, "press": 3.01}},
    ),
    "ThingsBoard object": Case({"ts": T * 1000, "values": BOTH}, one("m1", **BOTH)),
    "ThingsBoard gateway": Case(
        {"device": "Device A", "ts": T * 1000, "values": BOTH}, one("Device A", **BOTH), key=None
    ),
    "Telegraf": Case(
        {"fields": BOTH, "name": "opcua", "tags": {"host": "edge1", "id": "m1"}, "timestamp": T}, one("m1", **BOTH)
    ),
    "Telegraf without a key": Case(
        {"fields": BOTH, "name": "opcua", "tags": {"host": "edge1"}, "timestamp": T}, one("edge1", **BOTH), key=None
    ),
    "Telegraf with a random key": Case(
        {"fields": BOTH, "name": "opcua", "tags": {"host": "edge1"}, "timestamp": T},
        one("edge1", **BOTH),
        key=b"0f8fad5b-d9cb-469f-a165-70867728950e",
    ),
    "Telegraf batch": Case(
        {
            "metrics": [
                {"fields": {"temp": 50.1}, "name": "m", "tags": {"device": "p1"}, "timestamp": T},
                {"fields": {"temp": 51.5}, "name": "m", "tags": {"device": "p2"}, "timestamp": T},
            ]
        },
        {("p1", T): {"temp": 50.1}, ("p2", T): {"temp": 51.5}},
    ),
    "Kafka Connect envelope": Case(
        {
            "schema": {"type": "struct", "fields": [{"field": "temp", "type": "double"}]},
            "payload": {"ts": T * 1000, **BOTH},
        },
        one("m1", **BOTH),
    ),
    "Kafka Connect envelope with a text": Case(
        {"schema": {"type": "string"}, "payload": json.dumps({"ts": T, **BOTH})}, one("m1", **BOTH)
    ),
    "Debezium": Case(
        {
            "before": None,
            "after": {"id": 7, "machine": "m7", "measured_at": f"{ISO}Z", "temp": 50.1},
            "source": {"db": "plant", "table": "readings", "ts_ms": 1},
            "op": "c",
            "ts_ms": T * 1000 + 99,
        },
        one("7", temp=50.1),
        key=b'{"schema":{"type":"struct"},"payload":{"id":7}}',
    ),
    "Debezium with its schema": Case(
        {"schema": {}, "payload": {"before": None, "after": {"ts": T, "temp": 50.1}, "op": "u", "ts_ms": 1}},
        one("7", temp=50.1),
        key=b'{"schema":{"type":"struct"},"payload":{"id":7}}',
    ),
    "CloudEvents": Case(
        {
            "specversion": "1.0",
            "id": "A234-1234",
            "type": "com.example.reading",
            "source": "/plant/press-4",
            "time": f"{ISO}Z",
            "datacontenttype": "application/json",
            "data": BOTH,
        },
        one("m1", **BOTH),
    ),
    "AWS IoT rule": Case(
        {"deviceId": "pump-9", "timestamp": T * 1000, "temperature": 50.1, "humidity": 40},
        one("pump-9", temperature=50.1, humidity=40),
        key=None,
    ),
    "AWS IoT shadow": Case(
        {
            "state": {"reported": BOTH},
            "metadata": {"reported": {"temp": {"timestamp": T}}},
            "version": 5,
            "timestamp": T,
            "clientToken": "t-1",
        },
        one("m1", **BOTH),
    ),
    "Azure IoT Hub": Case(
        {
            "enqueuedTime": f"{ISO}.000Z",
            "properties": {},
            "systemProperties": {"iothub-connection-device-id": "dev-3", "iothub-connection-auth-generation-id": "63"},
            "body": BOTH,
        },
        one("dev-3", **BOTH),
        key=None,
    ),
    "Azure IoT Edge OPC Publisher": Case(
        {
            "MessageId": "17",
            "MessageType": "ua-data",
            "PublisherId": "edge1",
            "Messages": [
                {
                    "DataSetWriterId": "press-4",
                    "SequenceNumber": 12,
                    "MetaDataVersion": {"MajorVersion": 1, "MinorVersion": 0},
                    "Timestamp": f"{ISO}.1Z",
                    "Payload": {
                        "temp": {"Value": 50.1, "SourceTimestamp": f"{ISO}.0000000Z"},
                        "press": {"Value": 3.0, "SourceTimestamp": f"{ISO}.0000000Z"},
                    },
                }
            ],
        },
        one("press-4", **BOTH),
        key=None,
    ),
    "OPC Publisher samples": Case(
        {
            "NodeId": "nsu=X;s=Line1.temp",
            "ApplicationUri": "urn:edge1",
            "DisplayName": "temp",
            "Value": 50.1,
            "SourceTimestamp": f"{ISO}.4983294Z",
        },
        one("m1", temp=50.1),
    ),
    "OPC Publisher samples, value with its time": Case(
        {
            "NodeId": "nsu=X;i=1",
            "DisplayName": "temp",
            "Value": {"Value": 50.1, "SourceTimestamp": f"{ISO}Z", "StatusCode": {"Code": 0, "Symbol": "Good"}},
        },
        one("m1", temp=50.1),
    ),
    "OPC Publisher, text beside the node": Case(
        {"NodeId": "nsu=X;s=Line1.temp", "ApplicationUri": "urn:edge1", "temp": "50.1", "SourceTimestamp": f"{ISO}Z"},
        one("m1", temp=50.1),
        sensors=LISTED,
    ),
    "Kepware IoT Gateway": Case(
        {
            "timestamp": T * 1000,
            "values": [
                {"id": "Ch.Dev.temp", "v": 50.1, "q": True, "t": T * 1000},
                {"id": "Ch.Dev.press", "v": 3.0, "q": True, "t": T * 1000},
                {"id": "Ch.Dev.flow", "v": 9.9, "q": False, "t": T * 1000},
                {"id": "Ch.Other.temp", "v": 20.5, "q": True, "t": T * 1000},
            ],
        },
        {("Ch.Dev", T): BOTH, ("Ch.Other", T): {"temp": 20.5}},
        key=None,
    ),
    "Ignition tag": Case(
        {"tagPath": "[default]Line1/temp", "value": 50.1, "quality": 192, "timestamp": T * 1000},
        {("m1", T): {"[default]Line1/temp": 50.1}},
    ),
    "Sparkplug as JSON": Case(
        {
            "timestamp": T * 1000,
            "metrics": [
                {"name": "temp", "timestamp": T * 1000, "dataType": "Float", "value": 50.1},
                {"name": "running", "timestamp": T * 1000, "dataType": "Boolean", "value": True},
                {"name": "press", "timestamp": T * 1000, "dataType": "Float", "is_null": True, "value": 0},
            ],
            "seq": 2,
        },
        one("m1", temp=50.1, running=1.0),
    ),
    "fleet telemetry": Case(
        {
            "createdAt": f"{ISO}.288747421Z",
            "vin": "V1",
            "data": [
                {"key": "temp", "value": {"doubleValue": 50.1}},
                {"key": "gear", "value": {"stringValue": "3"}},
                {"key": "locked", "value": {"booleanValue": True}},
            ],
        },
        one("V1", temp=50.1, gear=3, locked=1),
        key=None,
    ),
    "ChirpStack": Case(
        {
            "deduplicationId": "3ac7e3c4",
            "time": f"{ISO}.000+00:00",
            "deviceInfo": {"tenantName": "T", "deviceName": "soil-1", "devEui": "0101010101010101", "tags": {}},
            "devAddr": "00189440",
            "adr": True,
            "dr": 1,
            "fCnt": 10,
            "fPort": 2,
            "confirmed": False,
            "data": "qg==",
            "object": {"temp": 22.5, "humidity": 61},
            "rxInfo": [{"gatewayId": "0016c0", "rssi": -36, "snr": 10.5}, {"gatewayId": "0016c1", "rssi": -90}],
            "txInfo": {"frequency": 868300000},
        },
        one("soil-1", temp=22.5, humidity=61),
        key=None,
    ),
    "The Things Network": Case(
        {
            "end_device_ids": {"device_id": "soil-2", "application_ids": {"application_id": "farm"}},
            "received_at": f"{ISO}.2Z",
            "uplink_message": {
                "f_port": 2,
                "f_cnt": 7,
                "frm_payload": "AQ==",
                "decoded_payload": {"temp": 21.5, "battery": 3.6},
                "rx_metadata": [{"rssi": -42, "snr": 7.5}],
            },
        },
        one("soil-2", temp=21.5, battery=3.6),
        key=None,
    ),
    "Zigbee2MQTT": Case(
        {"battery": 100, "humidity": 50.1, "linkquality": 105, "temperature": 21.3, "last_seen": f"{ISO}Z"},
        one("m1", battery=100, humidity=50.1, linkquality=105, temperature=21.3),
    ),
    "Shelly Gen2 status": Case(
        {
            "src": "shellyplus1-a8032abe54dc",
            "dst": "shelly/events",
            "method": "NotifyStatus",
            "params": {"ts": float(T), "temperature:0": {"id": 0, "tC": 21.5, "tF": 70.7}},
        },
        {("shellyplus1-a8032abe54dc", T): {"temperature:0.tC": 21.5, "temperature:0.tF": 70.7}},
        key=None,
    ),
    "Tasmota": Case(
        {"Time": ISO, "AM2301": {"Temperature": 21.5, "Humidity": 50}, "TempUnit": "C"},
        {("m1", T): {"AM2301.Temperature": 21.5, "AM2301.Humidity": 50}},
    ),
    "Tasmota without a value": Case(
        f'{{"Time": "{ISO}", "AM2301": {{"Temperature": nan, "Humidity": 50.5}}}}',
        {("m1", T): {"AM2301.Humidity": 50.5}},
    ),
    "Home Assistant state": Case(
        {
            "entity_id": "sensor.boiler",
            "state": "50.1",
            "attributes": {"unit_of_measurement": "°C", "friendly_name": "Boiler"},
            "last_changed": f"{ISO}+00:00",
            "context": {"id": "01H", "parent_id": None, "user_id": None},
        },
        {("m1", T): {"sensor.boiler": 50.1}},
    ),
    "Home Assistant switch": Case(
        {"entity_id": "switch.fan", "state": "on", "last_changed": f"{ISO}Z"}, {("m1", T): {"switch.fan": 1.0}}
    ),
    "Home Assistant event": Case(
        {
            "event_type": "state_changed",
            "time_fired": f"{ISO}Z",
            "data": {
                "entity_id": "sensor.boiler",
                "old_state": {"entity_id": "sensor.boiler", "state": "49"},
                "new_state": {"entity_id": "sensor.boiler", "state": "50.1", "last_changed": f"{ISO}Z"},
            },
        },
        {("m1", T): {"sensor.boiler": 50.1}},
    ),
    "SenML": Case(
        [
            {"bn": "urn:dev:mac:0024be:", "bt": T, "n": "temp", "u": "Cel", "v": 50.1},
            {"n": "press", "u": "bar", "v": 3.0},
            {"n": "temp", "u": "Cel", "v": 50.2, "t": 10},
        ],
        {("urn:dev:mac:0024be", T): BOTH, ("urn:dev:mac:0024be", T + 10): {"temp": 50.2}},
        key=None,
    ),
    "Prometheus": Case(
        {
            "timestamp": f"{ISO}Z",
            "value": "50.1",
            "name": "temp",
            "labels": {"__name__": "temp", "instance": "pump-3:9100", "job": "plant"},
        },
        one("pump-3:9100", temp=50.1),
        key=None,
    ),
    "Fluent Bit": Case([float(T), {"cpu_p": 5.5, "host": "node-1"}], one("node-1", cpu_p=5.5), key=None),
    "Beats": Case(
        {
            "@timestamp": f"{ISO}.000Z",
            "host": {"name": "node-1"},
            "metricset": {"name": "cpu"},
            "system": {"cpu": {"user": {"pct": 0.25}, "idle": {"pct": 0.5}}},
        },
        {("node-1", T): {"system.cpu.user.pct": 0.25, "system.cpu.idle.pct": 0.5}},
        key=None,
    ),
    "InfluxDB points": Case(
        [{"measurement": "m", "tags": {"machine": "p1"}, "time": f"{ISO}Z", "fields": BOTH}],
        one("p1", **BOTH),
        key=None,
    ),
    "InfluxDB query result": Case(
        {"results": [{"series": [{"name": "m", "columns": ["time", "temp"], "values": [[f"{ISO}Z", 50.1]]}]}]},
        one("m1", temp=50.1),
    ),
    "several machines in an array": Case(
        {"ts": T, "plant": "north", "pumps": [{"id": "p1", "temp": 50.1}, {"id": "p2", "temp": 51.5}]},
        {("p1", T): {"temp": 50.1}, ("p2", T): {"temp": 51.5}},
    ),
    # ------------------------------------------------------------ measurements of several series
    "Telegraf mem": Case(
        {"fields": {"used_percent": 50.5}, "name": "mem", "tags": {"host": "h"}, "timestamp": T},
        {("h", T): {"mem.used_percent": 50.5}},
        key=None,
    ),
    "Telegraf disk": Case(
        {"fields": {"used_percent": 80.5}, "name": "disk", "tags": {"host": "h", "path": "/"}, "timestamp": T},
        {("h", T): {"disk.used_percent./": 80.5}},
        key=None,
    ),
    "Telegraf, cores": Case(
        {
            "metrics": [
                {"fields": {"usage_idle": 90.5}, "name": "cpu", "tags": {"host": "h", "cpu": "cpu0"}, "timestamp": T},
                {"fields": {"usage_idle": 80.5}, "name": "cpu", "tags": {"host": "h", "cpu": "cpu1"}, "timestamp": T},
            ]
        },
        {("h", T): {"cpu.usage_idle.cpu0": 90.5, "cpu.usage_idle.cpu1": 80.5}},
        key=None,
    ),
    "Telegraf, topic of MQTT": Case(
        {"fields": {"value": 3.5}, "name": "mqtt_consumer", "tags": {"host": "h", "topic": "p/temp"}, "timestamp": T},
        {("h", T): {"p/temp": 3.5}},
        key=None,
    ),
    "Telegraf, value": Case(
        {"fields": {"value": 3.5}, "name": "temp", "tags": {"host": "h", "dc": "north"}, "timestamp": T},
        {("h", T): {"temp": 3.5}},
        key=None,
    ),
    "line protocol, mem and disk": Case(
        f"mem,host=h used_percent=50.5 {T}000000000\ndisk,host=h,path=/ used_percent=80.5 {T}000000000",
        {("h", T): {"mem.used_percent": 50.5, "disk.used_percent./": 80.5}},
        key=None,
    ),
    "Prometheus samples": Case(
        {
            "labels": {"__name__": "temp", "instance": "i1", "zone": "a"},
            "samples": [{"value": 21.5, "timestamp": T * 1000}, {"value": 22.5, "timestamp": (T + 10) * 1000}],
        },
        {("i1", T): {"temp.a": 21.5}, ("i1", T + 10): {"temp.a": 22.5}},
        key=None,
    ),
    "Adafruit": Case(
        {"feed": {"id": 3, "key": "temp"}, "data": {"value": "21.5", "created_at": f"{ISO}Z"}}, one("m1", temp=21.5)
    ),
    "EdgeX": Case(
        {
            "deviceName": "dev",
            "readings": [
                {"origin": T * 10**9, "resourceName": "temp", "valueType": "Float32", "value": "50.1"},
                {"origin": T * 10**9, "resourceName": "press", "valueType": "Float32", "value": "3.0"},
            ],
        },
        one("dev", **BOTH),
        key=None,
        fields={"time": ["origin"]},
    ),
    "SiteWise": Case(
        {
            "propertyAlias": "/a/temp",
            "propertyValues": [{"value": {"doubleValue": 21.5}, "timestamp": {"timeInSeconds": T}, "quality": "GOOD"}],
        },
        {("m1", T): {"/a/temp": 21.5}},
        fields={"time": ["timestamp.timeInSeconds"]},
    ),
    "Timestream": Case({"MeasureName": "cpu", "MeasureValue": "21.5", "Time": str(T * 1000)}, one("m1", cpu=21.5)),
    # ------------------------------------------------------------ long format
    "long by a number": Case({"ts": T, "channel": 1, "value": 21.5}, {("m1", T): {"channel.1": 21.5}}),
    "long by a number in a text": Case({"ts": T, "channel": "2", "value": 3.5}, {("m1", T): {"channel.2": 3.5}}),
    "long by a register": Case({"ts": T, "register": 40001, "value": 21.5}, {("m1", T): {"register.40001": 21.5}}),
    "the key's own name": Case({"ts": T, "id": "p1", "value": 21.5}, one("p1", value=21.5), key=b"p1"),
    "the sensor is the key": Case({"ts": T, "sensor": "s1", "value": 3.5}, one("s1", value=3.5), key=b"s1"),
    "the asset's own name": Case(
        {"ts": T, "id": "p1", "value": 21.5}, one("p1", value=21.5), key=None, fields={"asset": ["id"]}
    ),
    "a name of the key and another value": Case(
        {"ts": T, "name": "p1", "value": 21.5, "temp": 3.5}, one("p1", value=21.5, temp=3.5), key=b"p1"
    ),
    "one value of an asset": Case({"ts": T, "value": 21.5, "unit": "C", "seq": 4}, one("m1", value=21.5)),
    "a value among others": Case({"ts": T, "value": 21.5, "temp": 3.5}, one("m1", value=21.5, temp=3.5)),
    "one value in an object": Case({"ts": T, "data": {"value": 21.5}}, one("m1", value=21.5)),
    "a value of a listed sensor": Case(
        {"ts": T, "value": 21.5, "mode": "auto"}, one("m1", value=21.5), sensors=("value",)
    ),
    "long": Case({"ts": T, "metric": "temp", "value": 50.1}, one("m1", temp=50.1)),
    "long with a unit": Case({"ts": T, "sensor": "temp", "unit": "C", "value": 50}, one("m1", temp=50)),
    "long with texts": Case(
        {"sensor_id": "m1", "metric": "temp", "timestamp": str(T * 1000), "value": "50.1"}, one("m1", temp=50.1)
    ),
    "long by a weak name": Case({"time": T, "name": "temp", "value": 50.1, "quality": 192}, one("m1", temp=50.1)),
    "long in an array": Case(
        {"machine": "m4", "ts": T, "readings": [{"tag": "temp", "val": 50.1}, {"tag": "press", "val": 3.0}]},
        one("m4", **BOTH),
        key=None,
    ),
    "long with a decimal comma": Case({"ts": T, "tag": "temp", "value": "50,1"}, one("m1", temp=50.1)),
    "Node-RED": Case({"topic": "plant/temp", "payload": 50.1, "ts": T}, {("m1", T): {"plant/temp": 50.1}}),
    # ------------------------------------------------------------ fields that are no numbers
    "boolean beside listed sensors": Case({"ts": T, **BOTH, "running": True}, one("m1", **BOTH), sensors=LISTED),
    "boolean sensor": Case({"ts": T, "temp": 50.1, "door_open": True}, one("m1", temp=50.1, door_open=1.0)),
    "message number": Case({"ts": T, **BOTH, "seq": 4711}, one("m1", **BOTH), sensors=LISTED),
    "message number, learnt": Case({"ts": T, **BOTH, "seq": 4711, "entry_id": 9, "status": 0}, one("m1", **BOTH)),
    "numbers in texts": Case({"ts": T, "temp": "50.1", "press": "3.0"}, one("m1", **BOTH)),
    "one number in a text": Case({"ts": T, "temp": "50.1", "press": 3.0}, one("m1", **BOTH), sensors=LISTED),
    "decimal comma": Case({"ts": T, "temp": "50,1", "press": "3"}, one("m1", **BOTH), sensors=LISTED),
    "numbers with units": Case({"ts": T, "temp": "50.1 °C", "press": "3%"}, one("m1", **BOTH)),
    "signs of thousands": Case({"ts": T, "temp": "1,234.5", "press": "1.234,5"}, one("m1", temp=1234.5, press=1234.5)),
    "numbers with their type": Case(
        {"ts": T, "temp": {"N": "50.1"}, "press": {"$numberDouble": "3.0"}}, one("m1", **BOTH)
    ),
    "a list of timestamps": Case({"timestamps": [T], "temp": [50.1]}, one("m1", temp=50.1)),
    "Python's NaN": Case(f'{{"ts": {T}, "temp": NaN, "press": 3.0}}', one("m1", press=3.0), sensors=LISTED),
    "infinity": Case(f'{{"ts": {T}, "temp": -Infinity, "press": 3.0}}', one("m1", press=3.0), sensors=LISTED),
    "lower nan": Case(f'{{"ts": {T}, "temp": nan, "press": 3.0}}', one("m1", press=3.0), sensors=LISTED),
    "a number out of range": Case(f'{{"ts": {T}, "temp": 1e999, "press": 3.0}}', one("m1", press=3.0), sensors=LISTED),
    "a state in a sensor": Case({"ts": T, "temp": "unavailable", "press": 3.0}, one("m1", press=3.0), sensors=LISTED),
    "a word in a sensor": Case({"ts": T, "temp": "hot", "press": 3.0}, one("m1", press=3.0), sensors=LISTED),
    "an object in a sensor": Case({"ts": T, "temp": {"a": 1}, "press": 3.0}, one("m1", press=3.0), sensors=LISTED),
    "a value with its unit": Case(
        {"ts": T, "temp": {"value": 50.1, "unit": "C"}, "press": {"value": 3.0, "unit": "bar"}}, one("m1", **BOTH)
    ),
    "a new field": Case(
        {"ts": T, **BOTH, "rssi": -67, "fw": "2.1.0", "meta": {"fw": 2}}, one("m1", **BOTH), sensors=LISTED
    ),
    "a missing sensor": Case({"ts": T, "temp": 50.1}, one("m1", temp=50.1), sensors=LISTED),
    "a sentinel": Case(
        {"ts": T, "temp": -9999, "press": 3.0}, one("m1", press=3.0), sensors=LISTED, fields={"missing": [-9999]}
    ),
    "an enumeration": Case(
        {"ts": T, "temp": 50.1, "press": "HIGH"},
        one("m1", temp=50.1, press=2.0),
        sensors=LISTED,
        fields={"enum": {"low": 1, "high": 2}},
    ),
    # ------------------------------------------------------------ times
    "milliseconds as digits": Case({"ts": str(T * 1000), **BOTH}, one("m1", **BOTH)),
    "a date as a number": Case({"ts": 20260921141320, **BOTH}, one("m1", **BOTH)),
    "nine decimals": Case({"ts": f"{ISO}.000000412Z", **BOTH}, one("m1", **BOTH)),
    "local time with a zone": Case({"ts": "2026-09-21T16:13:20+02:00", **BOTH}, one("m1", **BOTH)),
    "local time by a setting": Case(
        {"ts": "2026-09-21T16:13:20", **BOTH}, one("m1", **BOTH), fields={"timezone": "Europe/Berlin"}
    ),
    "capital letters": Case({"Timestamp": T * 1000, **BOTH}, one("m1", **BOTH)),
    "TimeStamp and DeviceId": Case({"TimeStamp": T, "DeviceId": "d2", **BOTH}, one("d2", **BOTH), key=None),
    "Kafka's time by a setting": Case(BOTH, one("m1", **BOTH), fields={"time": ["kafka"]}, stamp_s=T),
    # ------------------------------------------------------------ bytes, keys and headers
    "byte order mark": Case("\ufeff" + json.dumps({"ts": T, **BOTH}), one("m1", **BOTH)),
    "nested data": Case({"ts": T, "data": BOTH}, one("m1", **BOTH)),
    "JSON in a text": Case({"ts": T, "payload": json.dumps(BOTH)}, one("m1", **BOTH)),
    "key in quotes": Case({"ts": T, **BOTH}, one("m1", **BOTH), key=b'"m1"'),
    "key of JSON": Case({"ts": T, **BOTH}, one("m1", **BOTH), key=b'{"id":"m1"}'),
    "key of Avro": Case({"ts": T, **BOTH}, one("m1", **BOTH), key=b"\0\0\0\0\x07\x04m1"),
    # ------------------------------------------------------------ the key beside other names
    "key before a device": Case({"ts": T, "device_id": "d1", "machine": "x", **BOTH}, one("m1", **BOTH)),
    "key before a host": Case({"ts": T, "host": "h1", **BOTH}, one("m1", **BOTH)),
    "key before an object of the device": Case({"ts": T, "device": {"id": "d1"}, **BOTH}, one("m1", **BOTH)),
    "key before tags": Case({"fields": BOTH, "tags": {"device": "d1"}, "timestamp": T}, one("m1", **BOTH)),
    "key of JSON before a device": Case({"ts": T, "machine": "x", **BOTH}, one("m1", **BOTH), key=b'{"id":"m1"}'),
    "key of Avro before a device": Case(
        {"ts": T, "machine": "x", **BOTH}, one("m1", **BOTH), key=b"\0\0\0\0\x07\x04m1"
    ),
    "asset before the key": Case({"ts": T, "asset": "a1", "device_id": "d1", **BOTH}, one("a1", **BOTH)),
    "asset_id before the key": Case({"ts": T, "asset_id": "a1", "device_id": "d1", **BOTH}, one("a1", **BOTH)),
    "device in place of a random key": Case(
        {"ts": T, "device_id": "d1", "host": "h1", **BOTH},
        one("d1", **BOTH),
        key=b"0f8fad5b-d9cb-469f-a165-70867728950e",
    ),
    "device in place of a key without a name": Case(
        {"ts": T, "device_id": "d1", **BOTH}, one("d1", **BOTH), key=b'{"a":1,"b":2}'
    ),
    "device in place of a random key in quotes": Case(
        {"ts": T, "device_id": "d1", **BOTH}, one("d1", **BOTH), key=b'"0f8fad5bd9cb469fa16570867728950e"'
    ),
    "a key of several names is one name": Case(
        {"ts": T, **BOTH}, one('{"site":"A","machine":"1"}', **BOTH), key=b'{"site":"A","machine":"1"}'
    ),
    "a key of a name and a time": Case({"ts": T, **BOTH}, one("m1", **BOTH), key=b'{"machine":"m1","ts":17}'),
    "device in place of a key of bytes": Case({"ts": T, "device_id": "d1", **BOTH}, one("d1", **BOTH), key=b"\xff\0"),
    "device before a host without a key": Case(
        {"ts": T, "host": "h1", "tags": {"machine": "d1"}, **BOTH}, one("d1", **BOTH), key=None
    ),
    "elements name themselves beside a key": Case(
        {"ts": T, "machine": "x", "parts": [{"name": "p1", "temp": 50.1}, {"name": "p2", "temp": 51.5}]},
        {("p1", T): {"temp": 50.1}, ("p2", T): {"temp": 51.5}},
    ),
    "elements without a name have the key": Case(
        {"machine": "x", "parts": [{"ts": T, "temp": 50.1}, {"ts": T + 10, "temp": 51.5}]},
        {("m1", T): {"temp": 50.1}, ("m1", T + 10): {"temp": 51.5}},
    ),
    "several fleets' settings": Case(
        {"when": T, "unit_name": "u1", "v": {"temp": 50.1}},
        one("u1", temp=50.1),
        key=None,
        fields={"asset": ["unit_name"], "time": ["when"], "values": ["v.*"]},
    ),
}
REFUSED: dict[str, Case] = {
    "time in an object": Case({"ts": {"$date": f"{ISO}Z"}, **BOTH}, one("m1", **BOTH), refused="missing_ts"),
    "time in a further object": Case({"meta": {"when": T}, **BOTH}, one("m1", **BOTH), refused="missing_ts"),
    "time beside a text of JSON": Case(
        {"data": json.dumps(BOTH), "published_at": f"{ISO}Z"}, one("m1", **BOTH), refused="missing_ts"
    ),
    "month first, certainly": Case({"ts": "9/21/2026 2:13:20 PM", **BOTH}, one("m1", **BOTH), refused="bad_ts"),
    "items with numbers": Case(
        {"ts": T, "motors": [{"no": 1, "temp": 21.5}, {"no": 2, "temp": 22.5}]},
        {("1", T): {"temp": 21.5}, ("2", T): {"temp": 22.5}},
        refused="ambiguous",
    ),
    "series without an asset": Case(
        [{"metric": "cpu", "ts": T, "value": v, "tags": {"host": "w", "cpu": c}} for v, c in ((1.5, "a"), (2.5, "b"))],
        {("a", T): {"cpu": 1.5}, ("b", T): {"cpu": 2.5}},
        refused="ambiguous",
    ),
    "a sensor of long format that is not listed": Case(
        {"ts": T, "type": "temperature", "value": 3.5},
        one("m1", temperature=3.5),
        sensors=LISTED,
        refused="unknown_sensor",
    ),
    "quotes": Case({"ts": T, "temp": 'say "hi"'}, one("m1", temp=1.0), sensors=LISTED, refused="wrong_type"),
    "a kind beside the value": Case(
        {"ts": T, "value": 21.5, "sensorType": "temp"}, one("m1", temp=21.5), refused="unknown_sensor"
    ),
    "a kind in an object": Case(
        {"ts": T, "data": {"value": 21.5, "kind": "temp"}}, one("m1", temp=21.5), refused="unknown_sensor"
    ),
    "a name and a limit": Case(
        {"ts": T, "name": "temp", "value": 21.5, "limit": 80.0}, one("m1", temp=21.5), refused="unknown_sensor"
    ),
    "a name around the value": Case(
        {"ts": T, "name": "temp", "data": {"value": 21.5}}, one("m1", temp=21.5), refused="unknown_sensor"
    ),
    "asset in a header": Case(
        {"ts": T, **BOTH}, one("h1", **BOTH), key=None, headers=(("device", b"h1"),), refused="missing_asset"
    ),
    "asset under a strange name": Case(
        {"ts": T, "unit_label": "u1", **BOTH}, one("u1", **BOTH), key=None, refused="missing_asset"
    ),
    "one asset for a whole topic": Case({"ts": T, **BOTH}, one("plant", **BOTH), key=None, refused="missing_asset"),
    "time under a strange name": Case({"when_measured": T, **BOTH}, one("m1", **BOTH), refused="missing_ts"),
    "no time at all": Case(BOTH, one("m1", **BOTH), refused="missing_ts", stamp_s=T),
    "day first": Case({"ts": "21.09.2026 14:13:20", **BOTH}, one("m1", **BOTH), refused="bad_ts"),
    "either day or month first": Case(
        {"ts": "03.04.2026 13:33:20", **BOTH},
        one("m1", at=1_775_223_200, **BOTH),
        refused="bad_ts",
        fields={"time_format": "day-first"},
    ),
    "other names than listed": Case(
        {"ts": T, "payload": {"a": {"temp": 50.1}, "b": {"temp": 40.0}}},
        {("m1", T): {"a.temp": 50.1}},
        sensors=("a.temp", "x"),
        refused="",
    ),
    "sensors that are not listed": Case(
        {"ts": T, "Temperature": 50.1}, one("m1", Temperature=50.1), sensors=LISTED, refused="unknown_sensor"
    ),
    "a word for every value": Case(
        {"ts": T, "temp": "HOT"}, one("m1", temp=1.0), sensors=LISTED, refused="wrong_type"
    ),
    "assets that nothing tells apart": Case(
        {"ts": T, "pumps": [{"nick": "p1", "temp": 50.1}, {"nick": "p2", "temp": 51.5}]},
        {("p1", T): {"temp": 50.1}, ("p2", T): {"temp": 51.5}},
        refused="ambiguous",
    ),
    "only numbers that count": Case(
        {"ts": T, "count": 17}, one("m1", count=17), refused="no_reading"
    ),
}


def decode(case: Case, *, is_many: bool = False, fields: dict[str, Any] | None = None) -> tuple[Readings, list[str]]:
    """Return the readings and the reasons. `is_many`: decode often enough that a fast parser reads the last one."""
    value = case.value
    if not isinstance(value, (bytes, str)):
        value = json.dumps(value)
    value = value if isinstance(value, bytes) else value.encode()
    given = case.fields if fields is None else fields
    enum = given.get("enum")
    tuples = {n: tuple(v) if isinstance(v, list) else v for n, v in given.items() if n != "enum"}
    places = Fields(**tuples, enum=None if enum is None else tuple(sorted(enum.items())))
    fleet = FleetSchema("line", 1_000_000, sensors=case.sensors, fields=places)
    decoder = Decoder([fleet])
    for _ in range(3 if is_many else 1):
        n = 8 if is_many else 1
        batch = RecordBatch(
            Partition("plant", 0), np.arange(n), np.full(n, case.stamp_s * 1_000_000), [case.key] * n, [value] * n,
            [case.headers] * n,
        )  # fmt: skip
        decoded = decoder.decode(batch)
    reasons = [q.reason for q in decoded.quarantined]
    [readings], [index] = decoded.readings, decoder.assets
    sensors = decoder.fleets[0].sensors or ()
    found: Readings = {}
    for row in np.flatnonzero(readings.offset == n - 1).tolist():
        values = {
            name: float(value) for name, value in zip(sensors, readings.values[row], strict=True) if np.isfinite(value)
        }
        found.setdefault((index.names[readings.asset[row]], int(readings.cell[row])), {}).update(values)
    return found, reasons


def close(found: Readings, expected: Readings) -> bool:
    return found.keys() == expected.keys() and all(
        found[at] == pytest.approx(values, rel=1e-6) for at, values in expected.items()
    )


@pytest.mark.parametrize("is_many", [False, True], ids=["slow", "fast"])
@pytest.mark.parametrize("name", TAKEN)
def test_a_message_is_read_right(name, is_many):
    case = TAKEN[name]
    found, reasons = decode(case, is_many=is_many)
    assert reasons == []
    assert close(found, case.expected), found


def proposal(reason: str) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of [kafka.fields] that a reason proposes, and the sensors that it says to list."""
    found = re.search(r"\[kafka\.fields\] (\w+ = .*?)(?:$|;|, or | where | takes|, which | \()", reason)
    settings = tomllib.loads(found[1].replace(", value = ", "\nvalue = ")) if found else {}
    has = re.search(r"the record, which has (.*?); list these under sensors", reason)
    lists = ("asset", "time", "sensor", "value")
    settings = {n: [v] if n in lists and isinstance(v, str) else v for n, v in settings.items()}
    return settings, has[1].split(", ") if has else []


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_message_names_the_settings_that_read_it(name):
    case = REFUSED[name]
    if not case.refused:
        found, reasons = decode(case)
        assert (reasons, close(found, case.expected)) == ([], True), found
        return
    found, [reason] = decode(case, fields={})
    assert (found, reason.split(":")[0]) == ({}, case.refused), reason
    settings, sensors = proposal(reason)
    assert settings or sensors, reason
    assert {**settings, **case.fields} == settings or case.fields.items() <= settings.items(), reason
    again = Case(**{**case.__dict__, "sensors": tuple(sensors) or case.sensors})
    found, reasons = decode(again, fields={} if sensors else settings)
    assert reasons == []
    assert close(found, case.expected), (reason, found)


@pytest.mark.parametrize(
    ("first", "then", "asset"),
    [
        ({"host": "h1", "device_id": None}, {"host": "h1", "device_id": "d1"}, "d1"),
        ({"tags": {"host": "h1"}, "device": {"name": None}}, {"tags": {"host": "h1"}, "device": {"name": "d1"}}, "d1"),
        ({"host": "h1", "data": {"src": None}}, {"host": "h1", "data": {"src": "s1"}}, "s1"),
        ({"device": {"name": "d1"}, "machine": None}, {"device": {"name": "d1"}, "machine": "m1"}, "m1"),
        ({"device_id": "d1", "asset": None}, {"device_id": "d1", "asset": "a1"}, "a1"),
    ],
    ids=["usual before weak", "own object before tags", "inner before outer", "field before object", "exact"],
)
def test_a_better_name_of_the_asset_counts_after_records_without_it(first, then, asset):
    values = [json.dumps({"ts": T, "temp": 50.1, "data": {"press": 3.0}} | each).encode() for each in (first, then)]
    values = [json.dumps(json.loads(value) | {"data": {"press": 3.0, **json.loads(value)["data"]}}) for value in values]
    decoder = Decoder([FleetSchema("line", 1_000_000, sensors=LISTED)])
    for value in [values[0], values[0], values[1]]:
        batch = RecordBatch(
            Partition("plant", 0), np.arange(8), np.full(8, (T + 5) * 1_000_000), [None] * 8, [value.encode()] * 8
        )
        [readings] = decoder.decode(batch).readings
    assert [decoder.assets[0].names[each] for each in readings.asset] == [asset] * 8


@pytest.mark.parametrize("keys", [[None], [b"k1"], [None, b"k1", b"0f8fad5b-d9cb-469f-a165-70867728950e"]], ids=str)
def test_each_record_decides_between_its_key_and_its_names(keys):
    value = json.dumps({"ts": T, "temp": 50.1, "device_id": "d1"}).encode()
    decoder = Decoder([FleetSchema("line", 1_000_000, sensors=LISTED)])
    for _ in range(3):
        given = keys * 8
        batch = RecordBatch(
            Partition("plant", 0), np.arange(len(given)), np.full(len(given), T * 1_000_000), given,
            [value] * len(given),
        )  # fmt: skip
        [readings] = decoder.decode(batch).readings
        found = [decoder.assets[0].names[each] for each in readings.asset]
        assert found == ["k1" if key == b"k1" else "d1" for key in given]


@pytest.mark.parametrize(
    "fields",
    [
        {"phenomenonTime": f"{ISO}Z", "result": 21.5},
        {"ts": T, "temp": "21.5", "on": "true"},
        {"ts": T, "cmd": "rx", "temp": 21.5, "hum": "40%"},
        {"ts": T, "published_at": f"{ISO}Z", "temp": 21.5},
    ],
)
def test_a_time_a_number_or_a_state_is_never_proposed_as_the_asset(fields):
    _, [reason] = decode(Case(fields, {}, key=None, fields={"time": ["ts", "phenomenonTime"]}))
    assert '[kafka.fields] asset = "topic"' in reason


@pytest.mark.parametrize(
    ("fields", "shown"),
    [
        ({"ts": T, "ch": [1.0, 2.0]}, '"ch" is a list of 2 numbers'),
        ({"ts": T, "interval": 0.1, "samples": [1, 2, 3]}, '"samples" is a list of 3 numbers'),
        ({"ts": T, "target": "a", "datapoints": [[21.5, T]]}, '"datapoints" is a list of 1 numbers'),
        ({"ts": T, "temp": "21.5 parsec"}, '"temp" is the text "21.5 parsec"'),
    ],
)
def test_numbers_that_are_not_read_are_no_heartbeat(fields, shown):
    _, [reason] = decode(Case(fields, {}))
    assert reason.startswith(f"unknown_shape: no number of the record is read: {shown}")


def test_a_text_that_begins_with_a_number_gets_no_other_number():
    _, [reason] = decode(Case({"ts": T, "temp": "21.5 parsec"}, {}, sensors=LISTED))
    assert 'send the number alone, or where it means no reading: [kafka.fields] missing = ["21.5 parsec"]' in reason


def test_readings_that_are_left_out_of_a_record_are_told():
    decoder = Decoder([FleetSchema("line", 1_000_000, sensors=("temp",))])
    items = [{"ts": T + at, "device": "p1", "temp": 1.5} for at in (0, 4000)] + [{"device": "p1", "temp": 1.5}]
    value = json.dumps(items).encode()
    batch = RecordBatch(Partition("plant", 0), np.arange(1), np.full(1, T * 10**6), [None], [value])
    decoded = decoder.decode(batch)
    [notice] = decoded.notices
    assert (decoded.n_accepted, len(decoded.readings[0].cell)) == (1, 1)
    assert (notice.kind, notice.subject, notice.n_records) == ("part_refused", "missing_ts", 1)
    assert 'missing_ts: there is no "ts"' in notice.detail


def test_the_table_is_long_enough():
    assert len(TAKEN) + len(REFUSED) >= 60


@pytest.mark.parametrize(
    "value",
    [
        {"ts": T, "event": "door_opened", "user": "x"},
        {"ts": T, "type": "heartbeat"},
        {"before": {"temp": 1.0}, "after": None, "op": "d", "ts_ms": T * 1000},
        {"entity_id": "sensor.boiler", "state": "unavailable", "last_changed": f"{ISO}Z"},
        {"ts": T, "temp": None, "press": None},
    ],
    ids=["event", "heartbeat", "deleted row", "unavailable state", "all null"],
)
@pytest.mark.parametrize("sensors", [None, LISTED], ids=["learnt", "listed"])
def test_messages_without_a_reading_are_counted_apart(value, sensors):
    _, [reason] = decode(Case(value, {}, sensors=sensors))
    assert reason.split(":")[0] in ("no_reading", "empty")

"""The files that people have: each is read right, or refused with the option that reads it.

The shapes are those of exports of historians, PLC and energy loggers, laboratory instruments, weather services,
dashboards and home automation. The values are made up.
"""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from monitor.decode.timestamps import parse_us
from monitor.errors import BadRecording
from monitor.recordings import FileOptions, read_recording

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

START = datetime(2025, 3, 1, tzinfo=UTC)
N = 40


def stamps(form: str, step: timedelta = timedelta(minutes=10), n: int = N) -> list[str]:
    return [(START + step * i).strftime(form) for i in range(n)]


def value(i: int) -> float:
    return 20 + i / 8


@dataclass(frozen=True)
class Shape:
    """A file, and what is in it."""

    name: str
    content: str | bytes
    sensors: tuple[str, ...]
    first: tuple[float | None, ...]
    """Values of the first row. None = missing."""
    n: int = N
    second: str = "2025-03-01T00:10:00Z"
    """Time of the second row."""
    assets: tuple[str, ...] = ("export",)
    told: tuple[str, ...] = ()
    refused: str = ""
    """What the refusal says without the options. Empty = the file needs none."""
    refused_with: dict[str, Any] = field(default_factory=dict)
    """Options that are wrong for it."""
    options: dict[str, Any] = field(default_factory=dict)
    file: str = "export.csv"
    meta: dict[str, Any] | None = None


ISO = "%Y-%m-%dT%H:%M:%SZ"


def table(header: str, row: Callable[[int, str], str], form: str = ISO, **more: Any) -> str:
    return header + "\n" + "".join(row(i, at) + "\n" for i, at in enumerate(stamps(form, **more)))


def comma(number: float) -> str:
    return f"{number:.3f}".replace(".", ",")


DECIMAL_COMMA = table("Zeitstempel;Vorlauf;Druck", lambda i, at: f"{at};{comma(value(i))[:-1]};{comma(1.8)}")
PLAIN = table("timestamp,temp,level", lambda i, at: f"{at},{value(i):.3f},{i}")
LOCAL = "%Y-%m-%d %H:%M:%S"

SHAPES = [
    Shape("plain", PLAIN, ("temp", "level"), (20, 0)),
    Shape("decimal comma and semicolons", DECIMAL_COMMA, ("Vorlauf", "Druck"), (20, 1.8), told=("decimal comma",)),
    Shape(
        "German thousands",
        table("Zeit;Leistung;Faktor", lambda i, at: f"{at};1.2{i:02}.500,25;{comma(0.9)[:-1]}"),
        ("Leistung", "Faktor"), (1_200_500.25, 0.9), told=("decimal comma",),
    ),
    Shape(
        "American thousands",
        table("time,power", lambda i, at: f'{at},"1,2{i:02},500.5"'), ("power",), (1_200_500.5,), told=("thousands",),
    ),
    Shape(
        "a comma that can be both",
        table("time;flow;a", lambda i, at: f"{at};{f'1,2{i:02}' if i < 9 else 900 + i};1"), ("flow", "a"), (1.2, 1),
        refused="--decimal comma", options={"decimal": "comma"},
    ),
    Shape("tabs", PLAIN.replace(",", "\t"), ("temp", "level"), (20, 0), file="export.txt"),
    Shape("bars", PLAIN.replace(",", "|"), ("temp", "level"), (20, 0)),
    Shape("a line for the spreadsheet", "sep=;\n" + PLAIN.replace(",", ";"), ("temp", "level"), (20, 0)),
    Shape("UTF-8 with a mark", b"\xef\xbb\xbf" + PLAIN.encode(), ("temp", "level"), (20, 0)),
    Shape("UTF-16", PLAIN.encode("utf-16"), ("temp", "level"), (20, 0), told=("UTF-16",)),
    Shape(
        "Windows-1252",
        PLAIN.replace("temp", "Temp °C").replace("level", "Füllstand").encode("cp1252"),
        ("Temp °C", "Füllstand"), (20, 0), told=("Windows-1252",),
    ),
    Shape("compressed", gzip.compress(PLAIN.encode()), ("temp", "level"), (20, 0), file="export.csv.gz"),
    Shape(
        "a delimiter at each end",
        table("timestamp;temp;level;", lambda i, at: f"{at};{value(i)};{i};"), ("temp", "level"), (20, 0),
    ),
    Shape(
        "a units row below the header",
        table("timestamp,temp,level\n,°C,mm", lambda i, at: f"{at},{value(i)},{i}"), ("temp", "level"), (20, 0),
        told=("row 2 below the header is no reading and is skipped (°C, mm)",),
    ),
    Shape(
        "a preamble above it",
        "Logger: PLC-7\nPlant: North, hall 2\nExported: 2025-03-02\n\n" + PLAIN, ("temp", "level"), (20, 0),
        told=("the header is row 5",),
    ),
    Shape(
        "the header again and again",
        PLAIN.replace("2025-03-01T02:00:00Z", "timestamp,temp,level\n2025-03-01T02:00:00Z"),
        ("temp", "level"), (20, 0), told=("the header is repeated in 1 rows",),
    ),
    Shape(
        "another header in the middle", PLAIN + "timestamp,temp,flow\n2025-03-02T00:00:00Z,1,2\n", ("temp", "level"),
        (20, 0), refused="in row 42 another header begins; split the file there", n=-1,
    ),
    Shape(
        "no header at all",
        "".join(f"{at},main,{value(i)},no error\n" for i, at in enumerate(stamps("%Y-%m-%dT%H:%M:%S+0000"))),
        ("column3",), (20,), told=("it has no header", "--columns", "its times are in column", "left out"),
    ),
    Shape(
        "no header, columns named",
        "".join(f"{at},{value(i)},{i}\n" for i, at in enumerate(stamps(ISO))),
        ("temp", "level"), (20, 0), options={"columns": ("time", "temp", "level")}, told=("named by --columns",),
    ),
    Shape(
        "two columns of one name",
        PLAIN.replace("level", "temp"), ("temp", "temp (2)"), (20, 0), told=("of the same name are numbered",),
    ),
    Shape(
        "a few rows of another width",
        table("timestamp,temp,level", lambda i, at: f"{at},{value(i)}" if i == 70 else f"{at},{value(i)},{i}", n=150),
        ("temp", "level"), (20, 0), n=149, told=("1 row has another number of cells than 3", "row 72"),
    ),
    Shape(
        "a total in the last line",
        table("timestamp,temp,level", lambda i, at: f"{at},{value(i)},{i}", n=150) + "Total,3000,11175\n",
        ("temp", "level"), (20, 0), n=150, told=("1 row without a time is left out",),
    ),
    # ---- times
    Shape(
        "days first", table("Datum;Temp", lambda i, at: f"{at};{value(i)}", "%d.%m.%Y %H:%M", n=2000),
        ("Temp",), (20,), n=2000, told=("the day first",),
    ),
    Shape(
        "months first", table("time,temp", lambda i, at: f"{at},{value(i)}", "%m/%d/%Y %I:%M:%S %p", n=2000),
        ("temp",), (20,), n=2000, told=("the month first",),
    ),
    Shape(
        "day or month first", table("time,temp", lambda i, at: f"{at},{value(i)}", "%d/%m/%Y %H:%M"), ("temp",), (20,),
        refused="--time-format day-first", options={"time_format": "day-first"},
    ),
    Shape(
        "spreadsheet days",
        "time;temp\n" + "".join(f"{comma(45717 + i / 144)};{comma(value(i))}\n" for i in range(N)),
        ("temp",), (20,), second="2025-03-01T00:10:04.8Z", refused="", told=(),
        options={"time_format": "excel"},
    ),
    Shape(
        "spreadsheet days with all decimals",
        "time,temp\n" + "".join(f"{45717 + i / 144:.10f},{value(i)}\n" for i in range(N)), ("temp",), (20,),
        second="2025-03-01T00:10:00Z", told=("days since 1900",),
    ),
    Shape(
        "whole days that can be seconds", "t.s,temp\n" + "".join(f"{45717 + i},{value(i)}\n" for i in range(N)),
        ("temp",), (20,), second="2025-03-02T00:00:00Z",
        refused="--time-format excel", options={"timestamp": "t.s", "time_format": "excel"},
    ),
    Shape(
        "compact days", table("date;temp", lambda i, at: f"{at};{value(i)}", "%Y%m%d", step=timedelta(days=1)),
        ("temp",), (20,), second="2025-03-02T00:00:00Z", told=("dates written as YYYYMMDD",),
    ),
    Shape(
        "weather hours",
        table(
            "STATIONS_ID;MESS_DATUM;QN_9;TT_TU;RF_TU;eor", lambda i, at: f"433;{at};5;{value(i)};80;eor", "%Y%m%d%H",
            step=timedelta(hours=1),
        ),
        ("QN_9", "TT_TU", "RF_TU"), (5, 20, 80), second="2025-03-01T01:00:00Z", assets=("433",),
        told=("YYYYMMDDHH", 'column "STATIONS_ID" names the assets', "left out, since they hold no numbers: eor"),
    ),
    Shape(
        "milliseconds", "ts,temp\n" + "".join(f"{1740787200000 + 600_000 * i},{value(i)}\n" for i in range(N)),
        ("temp",), (20,), told=("its times are ms since 1970",),
    ),
    Shape(
        "a unit that changes",
        "ts,temp\n" + "".join(f"{(1740787200 + 600 * i) * (1000 if i > 20 else 1)},{value(i)}\n" for i in range(N)),
        ("temp",), (20,), refused="--time-format s, ms", options={"columns": ("ts", "temp"), "time_format": "auto"},
        n=-1,
    ),
    Shape(
        "date and clock apart",
        table("Date,Time,temp", lambda i, at: f"{at},{value(i)}", "%Y-%m-%d,%H:%M:%S"), ("temp",), (20,),
        told=('its times are the columns "Date" and "Time" together',),
    ),
    Shape(
        "local time across the change in autumn",
        "time,temp\n" + "".join(f"2025-10-26 {at},{value(i)}\n" for i, at in enumerate(
            ("01:30", "02:00", "02:30", "02:00", "02:30", "03:00"))),
        ("temp",), (20,), n=6, second="2025-10-26T00:00:00Z", options={"timezone": "Europe/Berlin"},
        told=("local times of Europe/Berlin", "2 times are of the second pass"),
    ),
    Shape(
        "local time of a pattern",
        "time,temp\n" + "".join(f"26-10-2025/{at},{value(i)}\n" for i, at in enumerate(
            ("02:00", "02:30", "02:00", "02:30", "03:00"))),
        ("temp",), (20,), n=5, second="2025-10-26T00:30:00Z",
        options={"timezone": "Europe/Berlin", "time_format": "%d-%m-%Y/%H:%M"}, refused="is no time",
        told=("2 times are of the second pass",),
    ),
    Shape(
        "a clock that does not follow the change",
        table("time,temp", lambda i, at: f"{at},{value(i)}", LOCAL, step=timedelta(hours=1), n=900), ("temp",), (20,),
        n=900, second="2025-03-01T00:00:00Z", refused_with={"timezone": "Europe/Berlin"}, refused="--timezone +01:00",
        options={"timezone": "+01:00"},
    ),
    Shape(
        "no times, interval given", "temp\n" + "".join(f"{value(i)}\n" for i in range(N)), ("temp",), (20,),
        second="2000-01-01T00:00:10Z", refused="--interval 10s", options={"interval_s": 10},
        told=("rows are 10 s apart",),
    ),
    Shape(
        "no times, interval in meta.json", "temp\n" + "".join(f"{value(i)}\n" for i in range(N)), ("temp",), (20,),
        second="2000-01-01T00:00:01Z", meta={"sampling_interval_s": 1}, told=("rows are 1 s apart",),
    ),
    Shape(
        "times under another name", table("quando,temp", lambda i, at: f"{at},{value(i)}"), ("temp",), (20,),
        told=('its times are in column "quando"',),
    ),
    Shape(
        "two columns of times", table("begin,end,temp", lambda i, at: f"{at},{at},{value(i)}"), ("temp",), (20,),
        refused="--time-column", options={"timestamp": "end"},
    ),
    # ---- cells
    Shape(
        "states and words",
        table("timestamp,pump,temp,mode", lambda i, at: f"{at},{'on' if i % 2 else 'off'},"
              f"{'unavailable' if i == 3 else value(i)},{'auto' if i % 3 else 'hand'}"),
        ("pump", "temp"), (0, 20),
        told=("read as 1 and 0", '1 × "unavailable" means missing', "left out, since they hold no numbers: mode"),
    ),
    Shape(
        "a word that is no number", PLAIN.replace("20.375", "warmup"), ("temp", "level"), (20, 0),
        refused="--missing warmup", options={"missing": ("warmup",)}, told=("warmup",),
    ),
    Shape(
        "units behind the numbers", table('"Time","CPU temp"', lambda i, at: f'"{at}","{value(i):.1f} °C"'),
        ("CPU temp",), (20,), told=("the unit °C behind the numbers is cut off",),
    ),
    Shape(
        "two units in one column",
        table("time,power", lambda i, at: f"{at},{value(i):.1f} {'kW' if i % 2 else 'W'}"), ("power",), (20,),
        refused="mixes the units W, kW", n=-1,
    ),
    Shape(
        "a named missing value", PLAIN.replace(",20.000,", ",-200,"), ("temp", "level"), (None, 0),
        options={"missing": (-200.0,)}, told=("1 × -200 means missing",),
    ),
    # ---- long format
    Shape(
        "series, time, value",
        '\ufeff"Series";"Time";"Value"\n' + "".join(
            f'"{name}";"{at}";{value(i) + plus:.2f}\n'
            for name, plus in (("Boiler", 0), ("Return", -5))
            for i, at in enumerate(stamps(ISO))),
        ("Boiler", "Return"), (20, 15), told=("long format", "2 sensors: Boiler, Return"),
    ),
    Shape(
        "annotated, several header lines",
        "#group,false,false,true,true,false,false,true,true\n#datatype,string,long,dateTime:RFC3339,dateTime:RFC3339,"
        "dateTime:RFC3339,double,string,string\n#default,mean,,,,,,,\n"
        ",result,table,_start,_stop,_time,_value,_field,sensor_id\n" + "".join(
            f",,{k},2025-03-01T00:00:00Z,2025-03-02T00:00:00Z,{at},{value(i) + k},{name},S0100\n"
            for k, name in enumerate(("temperature", "humidity")) for i, at in enumerate(stamps(ISO))),
        ("temperature", "humidity"), (20, 21), assets=("S0100",), told=("the header is row 4", "long format"),
    ),
    Shape(
        "home automation history",
        "entity_id,state,last_changed\n" + "".join(
            f"{name},{state(i)},{at[:-1]}.000Z\n" for i, at in enumerate(stamps(ISO)) for name, state in (
                ("sensor.room", lambda i: "unknown" if i == 5 else value(i)),
                ("binary_sensor.door", lambda i: "on" if i % 2 else "off"),
                ("sensor.mode", lambda _: "eco"))),
        ("sensor.room", "binary_sensor.door"), (20, 0),
        told=("long format", "read as 1 and 0", "left out, since they hold no numbers: sensor.mode"),
    ),
    Shape(
        "tags of a historian",
        table("Tag;TimeStamp;Value;Quality", lambda i, at: f"FIC101.PV;{at};{comma(value(i))};192\n"
              f"TIC102.PV;{at};{'Bad Input' if i == 4 else comma(value(i) * 2)};192", "%d-%b-%y %H:%M:%S"),
        ("FIC101.PV", "TIC102.PV"), (20, 40), told=("long format", "columns that are not used: Quality"),
    ),
    Shape(
        "series that nobody named",
        table("Ort;Zeit;Temperatur", lambda i, at: f"Keller;{at};{value(i)}\nDach;{at};{value(i) + 9}"),
        ("Keller", "Dach"), (20, 29), refused="--sensor-column Ort", options={"sensor": "Ort"},
    ),
    Shape(
        "machines that nobody named",
        table("Linie,Zeit,Temperatur,Druck", lambda i, at: f"7,{at},{value(i)},1\n8,{at},{value(i) + 9},2"),
        ("Temperatur", "Druck"), (20, 1), n=2 * N, second="2025-03-01T00:00:00Z", assets=("7", "8"),
        refused="--asset-column Linie", options={"asset": "Linie"},
    ),
    Shape(
        "several devices", table("device_id,ts,temp", lambda i, at: f"A,{at},{value(i)}\nB,{at},{value(i) + 1}"),
        ("temp",), (20,), n=2 * N, second="2025-03-01T00:00:00Z", assets=("A", "B"),
        told=('column "device_id" names the assets',),
    ),
    # ---- exports
    Shape(
        "channel feed of a cloud",
        table("created_at,entry_id,field1", lambda i, at: f"{at},{i + 1},{value(i)}", "%Y-%m-%dT%H:%M:%S+00:00"),
        ("entry_id", "field1"), (1, 20),
    ),
    Shape(
        "dashboard panel", table('"Time","inlet","outlet"', lambda i, at: f"{at},{value(i)},{value(i) + 1}", LOCAL),
        ("inlet", "outlet"), (20, 21), told=("read as UTC",),
    ),
    Shape(
        "SCADA report with paths, descriptions and units",
        table(
            "t_stamp,[default]Line1/Temp,[default]Line1/Flow\n,Boiler outlet,Feed pump\n,degC,m3/h",
            lambda i, at: f"{at},{value(i)},{i}",
        ),
        ("[default]Line1/Temp", "[default]Line1/Flow"), (20, 0), told=("2 rows below it are no reading",),
    ),
    Shape(
        "laboratory instrument",
        "LabVIEW Measurement\t\t\nWriter_Version\t2\t\nSeparator\tTab\t\nDate\t2025/03/01\t\n***End_of_Header***\t\t\n"
        "\t\t\n" + "X_Value\tVoltage\tCurrent\n" + "".join(
            f"{0.5 * i:.6f}\t{value(i):.6f}\t{i}.000000\n" for i in range(N)),
        ("Voltage", "Current"), (20, 0), second="1970-01-01T00:00:00.5Z", file="export.lvm",
        refused="--time-column", options={"timestamp": "X_Value"},
    ),
    Shape(
        "multimeter log",
        "Device,Fluke 289\nSerial,12345678\n\n" + table(
            "Reading,Sample,Start Time,Elapsed", lambda i, at: f"{i + 1},{value(i):.3f},{at},0:00:{i:02}", LOCAL),
        ("Reading", "Sample"), (1, 20), told=("the header is row 4", 'its times are in column "Start Time"'),
    ),
    Shape(
        "PLC logger",
        table(
            '"TimeString";"VarName";"VarValue";"Validity"',
            lambda i, at: f'"{at}";"Motor1_rpm";"{comma(value(i))}";1\n"{at}";"Motor1_temp";"{comma(value(i) / 2)}";1',
            "%d.%m.%Y %H:%M:%S", n=2000,
        ),
        ("Motor1_rpm", "Motor1_temp"), (20, 10), n=2000, told=("decimal comma", "long format", "the day first"),
    ),
    Shape(
        "energy meter",
        table(
            "Datum/Uhrzeit;Zählerstand kWh;Leistung kW",
            lambda i, at: f"{at};{comma(81_234 + i / 7)};{comma(2.5)[:-1]}", "%Y-%m-%d %H:%M",
        ),
        ("Zählerstand kWh", "Leistung kW"), (81_234, 2.5), told=("decimal comma",),
    ),
    Shape(
        "blanks between the columns",
        table("time temp level", lambda i, at: f"{at}   {value(i)}  {i}"), ("temp", "level"), (20, 0),
        file="export.dat",
    ),
    Shape(
        "an index without a name",
        table(",temp,level", lambda i, at: f"{at},{value(i)},{i}", LOCAL), ("temp", "level"), (20, 0),
        told=("its times are in column",),
    ),
    Shape("points between thousands beside decimal commas", table(
        "Zeit;Leistung;Temp", lambda i, at: f"{at};{12 + i // 2}.{373 + i};{comma(value(i))[:-1]}"),
        ("Leistung", "Temp"), (12373, 20), told=('"Leistung": points separate thousands: "12.373"',)),
    Shape("points between thousands, and decimal points", table(
        "Zeit;Leistung;Temp", lambda i, at: f"{at};{'12.373' if i % 2 else '12.5'};{comma(value(i))[:-1]}"),
        ("Leistung", "Temp"), (12373, 20), n=-1,
        refused='"Leistung": "12.373" has a point between thousands, and "12.5" one before decimals'),
    Shape("points between thousands alone", table(
        "Zeit;Leistung", lambda i, at: f"{at};{980 + i if i < 20 else f'1.{i - 20:03}'}"),
        ("Leistung",), (980,), refused="--decimal comma (1000) or --decimal point", options={"decimal": "comma"}),
    Shape("millions with points", table("Zeit;Zahl", lambda i, at: f"{at};1.234.{500 + i}"),
        ("Zahl",), (1234500,), refused="--decimal comma (1234500)", options={"decimal": "comma"}),
    Shape("a quote that is not closed", table("ts,a,note", lambda i, at: f"{at},{i},{chr(34) * (i == 5)}ok"),
        ("a",), (0,), n=-1, refused="a quote in row 7 is not closed in its row, and takes 35 further lines"),
    Shape("a quote that is closed in a far row", table(
        "ts,a,note", lambda i, at: f"{at},{i},{chr(34) * (i in (5, 35))}ok"),
        ("a",), (0,), n=-1, refused="a quote in row 7 is not closed in its row"),
    Shape("two-digit years first", table(
        "Zeit;a", lambda i, at: f"{at};{i}", "%y/%m/%d %H:%M", step=timedelta(hours=6)),
        ("a",), (0,), second="2025-03-01T06:00:00Z",
        refused="--time-format '%y/%m/%d %H:%M' or --time-format day-first",
        options={"time_format": "%y/%m/%d %H:%M"}),
    Shape("two-digit years last", table("Zeit;a", lambda i, at: f"{at};{i}", "%d/%m/%y %H:%M", step=timedelta(days=1)),
        ("a",), (0,), second="2025-03-02T00:00:00Z", told=("day first",)),
    Shape("AM and PM in a column of their own", table(
        "Date,Time,AM/PM,Temp", lambda i, at: f"{at},{i}", "%Y-%m-%d,%I:%M:%S,%p", step=timedelta(hours=1)),
        ("Temp",), (0,), second="2025-03-01T01:00:00Z", told=('"AM/PM" holds the half of the day',)),
    Shape("JSON called CSV", '{"ts": 1, "a": 2}\n' * 3, ("a",), (2,), n=-1, refused="it is JSON"),
    Shape("a spreadsheet called CSV", b"PK\x03\x04" + bytes(60), ("a",), (2,), n=-1,
        refused="a ZIP archive, as .xlsx is"),
    Shape("a web page called CSV", "<!DOCTYPE html><html></html>", ("a",), (2,), n=-1, refused="a web page (HTML)"),
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=[shape.name for shape in SHAPES])
def test_a_file_is_read_right_or_names_the_option(shape: Shape, tmp_path: Path) -> None:
    path = tmp_path / shape.file
    path.write_bytes(shape.content if isinstance(shape.content, bytes) else shape.content.encode())
    if shape.meta is not None:
        (tmp_path / "meta.json").write_text(json.dumps(shape.meta))
    if shape.refused:
        with pytest.raises(BadRecording) as refusal:
            read_recording(path, FileOptions(**shape.refused_with))
        assert shape.refused in refusal.value.detail
        assert refusal.value.detail.startswith(f"{path}: ")
    if shape.n < 0:
        assert shape.refused  # no option reads such a file
        return
    recording = read_recording(path, FileOptions(**shape.options))
    assert recording.sensors == shape.sensors
    assert recording.assets == shape.assets
    assert len(recording) == shape.n
    expected = np.array([np.nan if cell is None else cell for cell in shape.first], np.float32)
    np.testing.assert_allclose(recording.values[0], expected, rtol=1e-6)
    assert recording.ts_us[1] == parse_us(shape.second)
    said = "\n".join((*recording.notes, *recording.losses))
    assert [words for words in shape.told if words not in said] == [], said


def test_the_table_covers_the_kinds() -> None:
    assert len(SHAPES) >= 25
    assert len({shape.name for shape in SHAPES}) == len(SHAPES)

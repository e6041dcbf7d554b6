"""Fleets, sensors and asset numbers: the state that a decoder keeps."""

from __future__ import annotations

import numpy as np
import pytest

from monitor.decode import AssetIndex, Decoder, FleetSchema, block_msgpack, reading_json
from monitor.decode.notes import Notes
from monitor.decode.schema import Growth
from tests.unit.decode.batches import SECOND, SENSORS, batch_of, turbines

ROW = [1.0, 2.0, 3.0]


def reading(asset, sensors=SENSORS, ts=1):
    return reading_json(asset, ts * SECOND, ROW[: len(sensors)], sensors)


def anonymous(ts=1):
    return b'{"ts":%d,"power":1}' % ts


class TestFleets:
    def fleets(self):
        return [
            turbines(name="elsewhere", topics=("another",)),
            turbines(name="north", assets=("N*", "X1")),
            turbines(name="rest", sensors=("pitch", "power", "wind_speed")),
        ]

    def test_the_first_matching_fleet_gets_the_record(self):
        decoder = Decoder(self.fleets())
        decoded = decoder.decode(batch_of([reading(a) for a in ("N1", "S1", "X1", "X2", "n1")]))
        assert [r.offset.tolist() for r in decoded.readings] == [[], [0, 2], [1, 3, 4]]
        assert [index.names for index in decoder.assets] == [[], ["N1", "X1"], ["S1", "X2", "n1"]]
        assert decoded.readings[2].values[0].tolist() == [3.0, 1.0, 2.0]  # in the order of the fleet, not of the record
        assert [r.fleet for r in decoded.readings] == ["elsewhere", "north", "rest"]

    def test_the_key_names_the_asset_if_no_field_does(self):
        decoder = Decoder(self.fleets())
        decoded = decoder.decode(batch_of([anonymous(), anonymous(), reading("N7")], [b"N1", b"S1", b"S1"]))
        assert [r.offset.tolist() for r in decoded.readings] == [[], [0, 2], [1]]
        assert decoder.assets[1].names == ["N1", "N7"]

    def test_keys_without_assets_cost_no_speed(self):
        """A key may name a production line instead of an asset. The fast parsers still decode such records."""
        decoder = Decoder(self.fleets())
        batch = batch_of([reading("N1"), reading("S1")] * 20, [b"line-1"] * 40)
        for _ in range(2):
            decoded = decoder.decode(batch)
            assert decoded.readings[1].offset.tolist() == list(range(0, 40, 2))
            assert decoded.readings[2].offset.tolist() == list(range(1, 40, 2))
        decoder._decode_record = pytest.fail
        assert decoder.decode(batch).n_accepted == 40

    def test_a_topic_without_a_fleet_is_named(self):
        [bad] = Decoder(self.fleets()[:1]).decode(batch_of([reading("N1")])).quarantined
        assert bad.reason == 'no_fleet: no fleet takes topic "plant"; add it to a fleet\'s topics'

    def test_an_asset_may_be_a_number_or_a_text(self):
        decoder = Decoder([turbines()])
        values = [b'{"ts":1,"asset":17,"power":1}', b'{"ts":2,"asset":"17","power":1}', anonymous(3)]
        decoded = decoder.decode(batch_of(values, [b"17"] * 3))
        assert decoder.assets[0].names == ["17"]
        assert decoded.readings[0].asset.tolist() == [0, 0, 0]


class TestAssetIndex:
    def test_a_restored_index_keeps_its_numbers(self):
        decoder = Decoder([turbines()], assets={"turbines": AssetIndex(["R9", "R1"])})
        decoded = decoder.decode(batch_of([reading("R1"), reading("R5"), reading("R9"), anonymous()], [b"R9"] * 4))
        assert decoded.readings[0].asset.tolist() == [1, 2, 0, 0]
        assert decoder.assets[0].names == ["R9", "R1", "R5"]

    def test_a_given_empty_index_is_used(self):
        mine = AssetIndex()
        Decoder([turbines()], assets={"turbines": mine}).decode(batch_of([reading("R1")]))
        assert mine.names == ["R1"]

    def test_assets_are_numbered_in_offset_order(self):
        block = block_msgpack("R2", np.array([0, 1]) * SECOND, np.ones((2, 3)), SENSORS)
        flat = b'{"ts":1,"asset":"R3","power":1}'
        values = [reading("R0"), flat, block, reading("R1"), b"nonsense", *[reading("R4")] * 8]
        decoder = Decoder([turbines()])
        decoded = decoder.decode(batch_of(values))
        assert decoder.assets[0].names == ["R0", "R3", "R2", "R1", "R4"]
        assert decoded.readings[0].offset.tolist() == [0, 1, 2, 2, 3, *range(5, 13)]
        assert decoded.readings[0].cell.tolist()[:5] == [1, 1, 0, 1, 1]

    def test_quarantined_records_number_no_asset(self):
        decoder = Decoder([turbines()])
        decoder.decode(batch_of([b'{"ts":1,"asset":"R1","power":"x"}', b'{"ts":1,"asset":"R2","power":1e39}']))
        assert decoder.assets[0].names == []


class TestLearntSensors:
    def test_sensors_are_learnt_as_they_appear(self):
        decoder = Decoder([turbines(sensors=None)])
        first = decoder.decode(batch_of([reading("R1", ("pitch",)), reading("R2", ("power", "pitch"))]))
        assert decoder.fleets[0].sensors == ("pitch", "power")
        assert first.n_accepted == 2
        assert first.readings[0].values[0, 0] == 1.0
        assert np.isnan(first.readings[0].values[0, 1])
        second = decoder.decode(batch_of([reading("R1", ("wind_speed",))]))
        assert second.n_accepted == 1
        assert decoder.fleets[0].sensors == decoder.learnt["turbines"] == ("pitch", "power", "wind_speed")
        assert np.isnan(second.readings[0].values).tolist() == [[True, True, False]]

    def test_a_learnt_list_reports_new_sensors(self):
        decoder = Decoder([turbines(sensors=("pitch",), growth=Growth.LEARNT)])
        rows = [b'{"ts":%d,"asset":"R%d","pitch":1,"power":2}' % (i, i % 3) for i in range(40)]
        for _ in range(2):  # the second time by the fast parser
            decoded = decoder.decode(batch_of([b'{"ts":1,"pitch":1,"seq":4}', *rows]))
            assert decoded.n_accepted == 41
            [notice] = [each for each in decoded.notices if each.kind == "new_sensor"]
            assert (notice.subject, notice.n_records, notice.offset) == ("power", 40, 1)
            assert notice.assets == {"R0", "R1", "R2"}
            assert "`monitor retrain` learns it" in notice.detail
        assert decoder.fleets[0].sensors == ("pitch",)

    def test_listed_sensors_ignore_other_fields_in_silence(self):
        decoder = Decoder([turbines(sensors=("pitch",))])
        decoded = decoder.decode(batch_of([b'{"ts":1,"pitch":1,"power":2,"ok":true,"meta":{"pitch":9}}'] * 3))
        assert (decoded.n_accepted, decoded.notices) == (3, ())
        assert decoded.readings[0].values.tolist() == [[1.0]] * 3

    def test_identifiers_are_not_learnt_but_told_once(self):
        decoder = Decoder([turbines(sensors=None)])
        values = [b'{"ts":%d,"seq":%d,"entry_id":7,"status":1,"temp":20.5,"lat":53.5}' % (i, i) for i in range(20)]
        decoded = decoder.decode(batch_of(values))
        assert decoder.fleets[0].sensors == ("temp", "lat")
        told = {each.subject: each.detail for each in decoded.notices}
        assert set(told) == {"seq", "entry_id", "status"}
        assert '[kafka.fields] values = ["temp", "lat", "status"]' in told["status"] or "values = " in told["status"]
        assert decoder.decode(batch_of(values)).notices == ()

    def test_bad_records_teach_no_sensors(self):
        decoder = Decoder([turbines(sensors=None)])
        decoded = decoder.decode(batch_of([b"[]", b'{"a":1}', b'{"ts":"x","b":1}', b'{"ts":1,"asset":"","c":1}']))
        assert (decoder.fleets[0].sensors, len(decoded.quarantined)) == (None, 4)
        assert decoded.readings[0].values.shape == (0, 0)

    def test_flat_texts_are_no_sensors_even_if_null(self):
        decoder = Decoder([turbines(sensors=None)])
        values = [b'{"ts":1,"power":1,"operator":null,"pitch":null}', b'{"ts":2,"power":1,"operator":"Ada","tags":[1]}']
        assert decoder.decode(batch_of(values)).n_accepted == 2
        assert decoder.fleets[0].sensors == ("power",)
        assert decoder.decode(batch_of([b'{"ts":3,"power":1,"pitch":2}'])).n_accepted == 1
        assert decoder.fleets[0].sensors == ("power", "pitch")

    def test_every_layout_teaches_sensors(self):
        values = [
            b'{"ts":1,"a":1}',
            b'{"ts":[1],"sensors":{"b":[1]}}',
            block_msgpack("R1", np.array([0]), np.ones((1, 2)), ["c", "a"]),
            reading("R1", ("d",)),
        ]
        decoder = Decoder([turbines(sensors=None)])
        assert decoder.decode(batch_of(values)).n_accepted == 4
        assert decoder.fleets[0].sensors == ("a", "b", "c", "d")

    def test_a_notice_about_a_hostile_name_can_be_stored_and_shown(self):
        notes = Notes(batch_of([reading("R1", ("power",))]))
        for name in ("a\0b\x1b]0;x\u202e", "ü" * 500):
            notes.add("new_sensor", "turbines", name, "detail", 0, "R1")
        assert all(each.subject.isprintable() and len(each.subject) <= 256 for each in notes.notices())
        assert len({each.subject for each in notes.notices()}) == 2

    def test_sensors_that_another_partition_learnt_are_used(self):
        fleet = turbines(sensors=None)
        decoder, other = Decoder([fleet]), Decoder([fleet])
        decoder.decode(batch_of([reading("R1")]))
        other.set_sensors(fleet.name, decoder.learnt[fleet.name])
        assert other.decode(batch_of([reading("R2", ("pitch",))])).readings[0].values.shape == (1, 3)

    def test_only_fleets_without_sensors_learn_them(self):
        fleets = [turbines(assets=("R*",)), FleetSchema("pumps", SECOND)]
        decoder = Decoder(fleets)
        decoder.decode(batch_of([reading("R1", ("power",)), reading("P1", ("flow",))]))
        assert [f.sensors for f in decoder.fleets] == [SENSORS, ("flow",)]
        assert decoder.learnt == {"pumps": ("flow",)}


class TestOddSensors:
    @pytest.mark.parametrize(
        "name", ['quo"te', "back\\slash", "tab\t", "é€", "", "ts", "asset", "sensors", "v0", "b0", "class"]
    )
    def test_a_sensor_may_have_any_name(self, name):
        decoder = Decoder([turbines(sensors=(name, "power"))])
        for _ in range(2):
            decoded = decoder.decode(batch_of([reading("R1", (name, "power"))] * 8))
            assert decoded.quarantined == []
            assert decoded.readings[0].values.tolist() == [[1.0, 2.0]] * 8

    def test_a_thousand_sensors_are_fine(self):
        names = tuple(f"s{i}" for i in range(1000))
        value = reading_json("R1", 0, np.arange(1000.0), names)
        decoded = Decoder([turbines(sensors=names)]).decode(batch_of([value] * 8))
        assert decoded.readings[0].values.tolist() == [list(range(1000))] * 8

    def test_half_a_cell_rounds_up(self):
        values = [b'{"ts":%s,"power":1}' % ts for ts in (b"0.499999", b"0.5", b"1.499999", b"-0.5", b"-0.500001")]
        decoded = Decoder([turbines()]).decode(batch_of(values))
        assert decoded.readings[0].cell.tolist() == [0, 1, 1, 0, -1]
        odd = Decoder([turbines(interval_us=7)]).decode(
            batch_of([b'{"ts":"1970-01-01T00:00:00.%06d","power":1}' % i for i in range(8)])
        )
        assert odd.readings[0].cell.tolist() == [0, 0, 0, 0, 1, 1, 1, 1]

"""The report: one JSON shape, a Markdown table, and bars."""

import json

import pytest

from train.bars import BARS, Bar
from train.intervals import Metric, exact
from train.report import Outcome, Report, Table, check_out, markdown, number, write

METRICS = {
    "bitrate_bps": exact(1000, 1, "bit/s"),
    "bitrate_bps_codec2_2400": exact(2400, 1, "bit/s"),
    "estoi_agent": Metric(0.861, 0.851, 0.874, 48, "1"),
    "estoi_heldout": Metric(0.6, 0.55, 0.65, 96, "1"),
    "wer_delta_agent": Metric(-0.5, -1.0, 0.25, 12, "points"),
}
TABLE = Table("agent", ("ESTOI", "PESQ"), (("ours", ("estoi_agent", "pesq_wb_agent")),))


@pytest.fixture
def report() -> Report:
    outcome = Outcome(METRICS, (TABLE,), ("voice kokoro:x is missing",))
    return Report("codec", "python -m train.evaluate", 61.5, (0.5, 0.25, 0.125), outcome)


def test_json_has_the_shape_of_the_design(report, tmp_path):
    out = tmp_path / "report.json"
    write(report, out)
    found = json.loads(out.read_text())
    assert set(found) == {
        "suite", "command", "commit", "machine", "load", "seconds", "metrics", "notes"
    }  # fmt: skip
    assert found["load"] == [0.5, 0.25, 0.125]
    assert found["metrics"]["estoi_agent"] == {
        "value": 0.861, "low": 0.851, "high": 0.874, "n": 48, "unit": "1"
    }  # fmt: skip
    assert found["metrics"]["bitrate_bps"]["low"] is None
    assert found["machine"]


def test_markdown_shows_tables_bars_and_notes(report, tmp_path):
    write(report, tmp_path / "report.json")
    text = (tmp_path / "report.md").read_text()
    assert text == markdown(report)
    lines = text.splitlines()
    assert "| ours | 0.861 (0.851 to 0.874) |  |" in lines
    assert "| `estoi_agent` | 0.861 (0.851 to 0.874) | >= 0.85 | held |" in lines
    assert "| `estoi_heldout` | 0.6 (0.55 to 0.65) | >= 0.72 | **not held** |" in lines
    assert "| `pesq_wb_agent` |  | >= 2.2 | not measured |" in lines
    assert "| `bitrate_bps` | 1000 | < 1200 (0.5 x `bitrate_bps_codec2_2400`) | held |" in lines
    assert "- voice kokoro:x is missing" in lines


def test_bars_compare_with_numbers_and_metrics():
    assert Bar("estoi_agent", ">=", 0.85).held(METRICS) is True
    assert Bar("estoi_agent", ">=", 0.87).held(METRICS) is False
    assert Bar("bitrate_bps", "<", "bitrate_bps_codec2_2400", 0.5).held(METRICS) is True
    assert Bar("bitrate_bps", "<", "bitrate_bps_codec2_2400", 0.4).held(METRICS) is False
    assert Bar("bitrate_bps", "<", "bitrate_bps_speex").held(METRICS) is None
    assert Bar("rtf_b1", "<=", 0.08).held(METRICS) is None


def test_every_bar_of_the_codec_is_of_the_issue():
    limits = {bar.metric: bar.limit for bar in BARS["codec"] if not isinstance(bar.limit, str)}
    assert limits == {
        "bitrate_bps": 1000, "wer_delta_agent": 3, "estoi_agent": 0.85, "pesq_wb_agent": 2.2,
        "dnsmos_drop_agent": 0.3, "wer_delta_heldout": 10, "estoi_heldout": 0.72,
        "pesq_wb_heldout": 1.6, "wer_delta_human": 15, "speaker_similarity_agent": 0.85,
        "code_use_min": 0.7, "phone_accuracy_code0": 0.55, "phone_accuracy_code0_ratio": 2,
        "rtf_b1": 0.08, "rtf_b16_per_stream": 0.02,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("value", "text"), [(1000.0, "1000"), (0.08612, "0.0861"), (2412.6, "2413"), (-0.5, "-0.5")]
)
def test_number(value, text):
    assert number(value) == text


def test_check_out_leaves_no_file(tmp_path):
    out = tmp_path / "new" / "report.json"
    check_out(out)
    assert list(out.parent.iterdir()) == []
    out.mkdir()
    with pytest.raises(ValueError, match="cannot write there"):
        check_out(out)


def test_table_refuses_rows_that_do_not_fit():
    with pytest.raises(ValueError, match="row ours: 1 names, must be 2"):
        Table("agent", ("ESTOI", "PESQ"), (("ours", ("estoi_agent",)),))

import pytest

from llmkit.bench.results import Findings, Result, check_equal, document, ratios
from llmkit.errors import BenchError


def test_ratios_are_ours_over_theirs():
    ours, theirs = {"rows_per_second": 600, "seconds": 1}, {"rows_per_second": 200, "seconds": 4}
    assert ratios(ours, theirs, ["rows_per_second", "seconds"]) == {"rows_per_second": 3, "seconds": 0.25}


def test_contenders_that_made_the_same_may_be_compared():
    check_equal("llmkit", ["a", "b"], "trl", ["a", "b"])


def test_different_rows_are_not_compared():
    with pytest.raises(BenchError, match="row 2: llmkit and trl made different tokens or masks"):
        check_equal("llmkit", ["a", "b"], "trl", ["a", "c"])


def test_a_missing_row_is_not_overlooked():
    with pytest.raises(BenchError, match="llmkit made 2 rows and trl 1"):
        check_equal("llmkit", ["a", "b"], "trl", ["a"])


def test_findings_of_two_parts_on_one_peer_come_together():
    findings = Findings([Result("tokenize/trl", {}, {})], {"trl": {"rows": 3.0}})
    findings.add(Findings([Result("packing/trl", {}, {})], {"trl": {"bins": 1.0}, "python": {"bins": 1.0}}))
    assert [one.name for one in findings.results] == ["tokenize/trl", "packing/trl"]
    assert findings.ratios == {"trl": {"rows": 3.0, "bins": 1.0}, "python": {"bins": 1.0}}


def test_the_document_has_metrics_beside_the_settings():
    findings = Findings(
        [Result("tokenize/trl", {"rows": 5}, {"rows_per_second": 7.0})], {"trl": {"rows_per_second": 2}}
    )
    assert document("bench data", {"cores": 2}, findings) == {
        "command": "bench data",
        "machine": {"cores": 2},
        "results": [{"name": "tokenize/trl", "settings": {"rows": 5}, "rows_per_second": 7.0}],
        "ratios": {"trl": {"rows_per_second": 2}},
    }

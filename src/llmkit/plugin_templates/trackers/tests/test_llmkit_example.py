import llmkit_example

from llmkit.testing.tracker import TrackerContract


class TestTracker(TrackerContract):
    name = "example_name"


def test_each_metric_is_a_line(tmp_path):
    tracker = llmkit_example.build(llmkit_example.Config(), tmp_path, {}, resumed=False)
    tracker.log({"step": 1, "time_seconds": 0.5, "loss": 2.25})
    tracker.close()
    assert (tmp_path / "metrics.csv").read_text() == "step,metric,value\n1,time_seconds,0.5\n1,loss,2.25\n"

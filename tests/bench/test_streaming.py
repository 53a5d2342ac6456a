from llmkit.bench.streaming import quarters


def test_quarters_are_medians_of_the_first_and_last_samples():
    found = quarters([100, 102, 110, 90, 90, 90, 104, 104])
    assert found == {"first_quarter_memory_bytes": 101, "last_quarter_memory_bytes": 104, "flat": True}


def test_memory_that_grows_is_not_flat():
    assert quarters([100, 120, 140, 160])["flat"] is False


def test_memory_that_shrinks_is_flat():
    assert quarters([160, 140, 120, 100])["flat"] is True


def test_what_the_system_does_not_tell_is_unknown():
    assert quarters([])["flat"] is None

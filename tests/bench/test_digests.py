from llmkit.bench.peers.digests import digests


def test_tokens_and_masks_both_decide():
    rows = [([1, 2], [0, 1]), ([1, 2], [1, 1]), ([1, 3], [0, 1]), ([1, 2], [0, 1])]
    one, other_mask, other_tokens, same = digests(rows)["digests"]
    assert len({one, other_mask, other_tokens}) == 3
    assert one == same


def test_totals_are_counted():
    found = digests([([1, 2, 3], [0, 1, 1]), ([4], [0])])
    assert (found["num_tokens"], found["num_trained"]) == (4, 2)

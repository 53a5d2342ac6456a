from hypothesis import given, settings
from hypothesis import strategies as st

from llmkit.engines.inference.native.block_pool import BlockPool, chain_key, root_key


def test_a_released_block_is_found_until_it_is_taken_for_something_else():
    pool = BlockPool(2)
    key = chain_key(root_key(0, "", 0), range(16))
    block = pool.take()
    pool.register(block, key)
    pool.release(block)
    assert pool.find(key) == block
    assert pool.num_free == 2
    assert pool.take() != block, "the block without contents goes first"
    assert pool.take() == block
    assert pool.find(key) is None


def test_the_block_released_longest_ago_goes_first():
    pool = BlockPool(3)
    blocks = [pool.take() for _ in range(3)]
    for number, block in enumerate(blocks):
        pool.register(block, bytes([number]))
    for block in (blocks[1], blocks[0], blocks[2]):
        pool.release(block)
    assert [pool.take() for _ in range(3)] == [blocks[1], blocks[0], blocks[2]]


def test_a_found_block_that_is_shared_is_no_longer_free():
    pool = BlockPool(1)
    block = pool.take()
    pool.register(block, b"key")
    pool.release(block)
    pool.share(block)
    assert pool.num_free == 0
    assert pool.references(block) == 1


def test_keys_differ_by_everything_that_comes_before_and_by_weights_adapter_and_salt():
    roots = [root_key(0, "", 0), root_key(0, "", 1), root_key(1, "", 0), root_key(0, "salt", 0)]
    keys = {chain_key(root, range(16)) for root in roots}
    keys |= {chain_key(chain_key(roots[0], range(16)), range(16)), chain_key(roots[0], range(1, 17))}
    assert len(keys) == 6


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7)), max_size=120))
def test_counts_stay_those_of_the_holders(moves: list[tuple[int, int]]):
    pool, held = BlockPool(8), list[int]()
    for move, choice in moves:
        if move == 0 and pool.num_free:
            held.append(pool.take())
        elif move == 1 and held:
            pool.release(held.pop(choice % len(held)))
        elif move == 2 and held:
            held.append(held[choice % len(held)])
            pool.share(held[-1])
        elif move == 3 and held:
            pool.register(held[choice % len(held)], bytes([choice]))
        elif move == 4 and (found := pool.find(bytes([choice]))) is not None:
            held.append(found)
            pool.share(found)
        assert [pool.references(block) for block in range(8)] == [held.count(block) for block in range(8)]
        assert pool.num_free == 8 - len(set(held))

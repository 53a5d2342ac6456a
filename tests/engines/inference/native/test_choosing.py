import pytest

from llmkit.engines.inference.contract import Demand
from llmkit.engines.inference.native import Config
from llmkit.engines.inference.native.choosing import choose

from .tiny import PACKED, make_model, policy_of


@pytest.mark.parametrize(
    ("config", "demand", "blocks"),
    [
        ({}, Demand(8, 40), 8 * (3 + 1)),  # 40 tokens are 3 blocks of 16
        ({"max_batch_size": 4}, Demand(8, 40), 4 * (3 + 1)),
        ({"num_blocks": 100}, Demand(8, 40), 100),
    ],
)
def test_the_cache_beside_a_trainer_holds_what_a_step_can_fill(config: dict[str, int], demand: Demand, blocks: int):
    policy = policy_of(make_model(next(iter(PACKED.values()))))
    chosen = choose(policy, Config.model_validate({"runner": "packed", **config}), demand)
    assert chosen.num_blocks == blocks
    alone = choose(policy, Config.model_validate({"runner": "packed", **config}))
    assert alone.num_blocks >= blocks

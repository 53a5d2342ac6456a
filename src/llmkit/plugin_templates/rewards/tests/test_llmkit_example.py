import llmkit_example

from llmkit.testing.reward import RewardContract
from llmkit.testing.samples import rollout


class TestReward(RewardContract):
    name = "example_name"
    better = (
        (rollout("Let me think.\nParis.", answer="Paris"), rollout("Rome", answer="Paris")),
        (rollout("paris", answer="Paris"), rollout("", answer="Paris")),
    )


def test_case_counts_when_asked_for():
    reward = llmkit_example.build(llmkit_example.Config(ignore_case=False))
    assert reward(rollout("paris", answer="Paris")) == 0
    assert reward(rollout("Paris", answer="Paris")) == 1

import llmkit_example
import torch

from llmkit.engines.training.optimizers.contract import ParameterGroup
from llmkit.testing.optimizer import OptimizerContract


class TestOptimizer(OptimizerContract):
    name = "example_name"


def test_every_weight_moves_by_the_learning_rate():
    weight = torch.nn.Parameter(torch.tensor([1.0, 1.0]))
    group = ParameterGroup("vector", [weight], learning_rate=0.25, weight_decay=0.0)
    optimizer = llmkit_example.build(llmkit_example.Config(), [group])
    weight.grad = torch.tensor([100.0, -0.01])
    optimizer.step()
    assert weight.tolist() == [0.75, 1.25]

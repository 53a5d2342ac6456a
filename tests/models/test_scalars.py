import torch

from llmkit.models.scalars import Sums, read_scalars


def test_numbers_of_several_types_come_in_order():
    values = [torch.tensor(1.5, dtype=torch.bfloat16), torch.tensor(2.0, dtype=torch.float64), torch.tensor(True)]
    assert read_scalars(values) == [1.5, 2.0, 1.0]
    assert read_scalars([]) == []


def test_metrics_add_up_by_name():
    sums = Sums()
    sums.add({"loss": torch.tensor(2.0, requires_grad=True), "kl": torch.tensor([1.0, 3.0])})
    sums.add({"loss": torch.tensor(0.5)})
    assert sums.read() == {"loss": 2.5, "kl": 4.0}
    assert Sums().read() == {}

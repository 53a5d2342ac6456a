import torch
from torch import nn

from llmkit.models.dropout import disable_dropout


class Attention(nn.Module):
    """Keeps its rate as a number, as transformers' attention modules do."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.attention_dropout = rate


def test_layers_and_rates_are_switched_off():
    model = nn.Sequential(nn.Dropout(0.5), Attention(0.1))
    assert disable_dropout(model)
    assert torch.equal(model[0].train()(torch.ones(100)), torch.ones(100))
    assert model[1].attention_dropout == 0.0


def test_it_says_when_there_was_none():
    assert not disable_dropout(nn.Sequential(nn.Dropout(0.0), Attention(0.0), nn.Linear(2, 2)))

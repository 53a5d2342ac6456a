"""A place for the policy's LoRA on servers that are started for training."""

from types import SimpleNamespace
from typing import Any

import peft
import pytest

from llmkit.engines.servers.program import Program
from llmkit.engines.servers.synced import SyncedConfig, with_room_for_adapter

RANKS = Program("ranked", "Ranked", (), {}, choices={"max_lora_rank": (8, 16, 32)})
ANY = Program("any", "Any", (), {})


def policy(**settings: Any) -> Any:
    """What is asked of a policy: whether it has a LoRA, and which."""
    configs = {"default": peft.LoraConfig(**settings)} if settings else {}
    return SimpleNamespace(model=SimpleNamespace(peft_config=configs))


def room(program: Program, policy: Any, **settings: Any) -> tuple[int, int | None]:
    config = with_room_for_adapter(program, SyncedConfig.model_validate(settings), policy)
    return config.max_loras, config.max_lora_rank


@pytest.mark.parametrize(("program", "rank", "expected"), [(RANKS, 8, 8), (RANKS, 9, 16), (ANY, 9, 9)])
def test_a_lora_has_a_place_of_a_rank_that_the_servers_know(program: Program, rank: int, expected: int):
    assert room(program, policy(r=rank)) == (1, expected)


def test_a_rank_above_all_leaves_merged_weights():
    assert room(RANKS, policy(r=64)) == (0, None)


def test_a_policy_without_a_lora_needs_none():
    assert room(RANKS, policy()) == (0, None)
    assert room(RANKS, policy(r=8, use_dora=True)) == (0, None)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"max_loras": 4, "max_lora_rank": 32}, (4, 32)),
        ({"sync": {"transport": "disk"}}, (0, None)),
        ({"sync": {"transport": "adapter"}}, (1, 8)),
        ({"urls": ["http://127.0.0.1:8000"]}, (0, None)),
    ],
)
def test_what_was_set_stays(settings: dict[str, Any], expected: tuple[int, int | None]):
    assert room(RANKS, policy(r=8), **settings) == expected

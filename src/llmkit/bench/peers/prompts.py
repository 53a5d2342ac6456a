"""The same prompts for everyone, and what is said of the tokens that follow them."""

import hashlib
import random
from typing import Any


def make_prompts(count: int, length: int, vocabulary: int, seed: int = 0) -> list[list[int]]:
    """Prompts of random tokens, none of them special."""
    generator = random.Random(f"{seed}:{count}:{length}")
    return [[generator.randrange(3, vocabulary) for _ in range(length)] for _ in range(count)]


def digests(completions: list[list[int]]) -> list[str]:
    """A name for the tokens of each completion."""
    return [hashlib.blake2b(repr(tokens).encode(), digest_size=8).hexdigest() for tokens in completions]


def check_case(settings: dict[str, Any]) -> tuple[int, int, int]:
    """Prompts, their tokens and new tokens of the comparison that comes before any speed."""
    return 3, min(48, settings["prompt_tokens"]), min(16, settings["new_tokens"])

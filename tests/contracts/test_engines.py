"""The engines that come with llmkit keep the contract that third parties test theirs with."""

from llmkit.testing.engine import EngineContract


class TestNative(EngineContract):
    name = "native"
    too_long = 512


class TestEcho(EngineContract):
    name = "echo"

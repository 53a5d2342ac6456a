"""Our optimizers keep the contract that third parties test theirs with."""

from importlib.util import find_spec
from typing import Any, ClassVar

import pytest

from llmkit.testing.optimizer import OptimizerContract


class TestAdamW(OptimizerContract):
    name = "adamw"


class TestMuon(OptimizerContract):
    name = "muon"


class TestSGD(OptimizerContract):
    name = "sgd"
    options: ClassVar[dict[str, Any]] = {"nesterov": True}


class TestAdafactor(OptimizerContract):
    name = "adafactor"


class TestScheduleFree(OptimizerContract):
    name = "schedule_free"


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes: pip install 'llmkit[quantization]'")
class TestAdamW8bit(OptimizerContract):
    name = "adamw_8bit"
    options: ClassVar[dict[str, Any]] = {"min_size": 1}

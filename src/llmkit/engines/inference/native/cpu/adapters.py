"""Low-rank adapters beside the C++ step's weights, each row of a step with its own."""

import ctypes
import re
from collections.abc import Sequence
from itertools import count
from typing import Any

import torch
from torch import Tensor

from llmkit.engines.inference.native.adapter_files import LowRankAdapter
from llmkit.engines.inference.native.adapter_set import fitting_layers, plain_modules
from llmkit.engines.inference.native.cpu.family import PROJECTIONS, projection_widths
from llmkit.engines.inference.native.cpu.structures import LayerAdapter, LowRank
from llmkit.errors import EngineError

MAX_RANK = 512
"""As in `kernels/adapters.h`."""
PLACE = re.compile(r"^model\.layers\.(?P<layer>\d+)\.(?P<module>\w+\.\w+)$")


class CpuAdapters:
    """Adapters by name, with numbers that steps carry to C++."""

    def __init__(self, library: ctypes.CDLL, model: int, policy_model: Any, dtype: torch.dtype) -> None:
        """Args:
        model: as `llmkit_create` gave it.
        policy_model: whose layers the adapters are for.
        """
        self._library = library
        self._model = model
        self._policy_model = policy_model
        self._modules = plain_modules(policy_model)
        self._dtype = dtype
        self._new_numbers = count(1)
        self._numbers: dict[str, int] = {}
        self._held: dict[str, list[Tensor]] = {}

    def numbers(self, names: Sequence[str | None]) -> Tensor:
        """[S] int32; 0 is the model itself.

        Raises:
            EngineError: an adapter was never loaded here.
        """
        if unknown := [name for name in names if name is not None and name not in self._numbers]:
            raise EngineError(f"the step asks for the adapter {unknown[0]!r}, which is not loaded")
        return torch.tensor([0 if name is None else self._numbers[name] for name in names], dtype=torch.int32)

    def objection(self, name: str, adapter: LowRankAdapter) -> str | None:
        """Why an adapter that fits the model cannot be held here; None when it can.

        Raises:
            RequestError: it does not fit the model.
        """
        fitting_layers(self._modules, name, adapter)
        for path, (down, _) in adapter.factors.items():
            found = PLACE.match(path)
            if found is None or found["module"] not in PROJECTIONS:
                return f"it changes {path}, and not only the projections of attention and MLP"
            if down.shape[0] > MAX_RANK:
                return f"its rank for {path} is {down.shape[0]}, above {MAX_RANK}"
        return None

    def load(self, name: str, adapter: LowRankAdapter) -> None:
        """Hold an adapter that there is no objection to."""
        config = self._policy_model.config
        layers = (LayerAdapter * config.num_hidden_layers)()
        held: list[Tensor] = []
        for path, (down, up) in adapter.factors.items():
            found = PLACE.match(path)
            assert found is not None, "there was an objection"
            inner = down.to(self._dtype).contiguous()
            held.append(inner)
            parts = up.to(self._dtype).float().split(projection_widths(config, found["module"]))
            for projection, part in zip(PROJECTIONS[found["module"]], parts, strict=True):
                held.append(outer := part.T.contiguous())
                low_rank = LowRank(inner.data_ptr(), outer.data_ptr(), len(inner))
                setattr(layers[int(found["layer"])], projection, low_rank)
        self._held[name] = held
        self._numbers[name] = next(self._new_numbers)
        self._library.llmkit_set_adapter(self._model, self._numbers[name], layers)

    def unload(self, name: str) -> None:
        """Forget an adapter."""
        self._library.llmkit_set_adapter(self._model, self._numbers.pop(name), None)
        del self._held[name]

"""What an engine's optimizer has gathered, in a checkpoint: tensors in shards, everything else as JSON.

    trainer/optimizer.json      numbers, names, and where in them each tensor belongs
    trainer/shards/             the tensors, as torch.distributed.checkpoint writes them: each process its own parts

Any number of processes reads what any other number wrote.
"""

import json
import pickle
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader, FileSystemWriter
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor

from llmkit.distributed.world import World
from llmkit.engines.training.optimizers.contract import Optimizer
from llmkit.errors import CheckpointError, TrainingError

STATE_FILE = "optimizer.json"
SHARDS = "shards"
TENSOR, PAIRS, TUPLE = "__tensor__", "__pairs__", "__tuple__"
"""Keys of what JSON has no form for."""

WholeOf = Callable[[str], Tensor | None]
"""The divided parameter that a tensor of this name is about; None for one that is whole."""


@dataclass(frozen=True)
class EngineSnapshot:
    """A state that later steps do not change.

    Attributes:
        structure: everything but the tensors.
        tensors: by name, those that are divided as parts of the whole.
        world: the processes that have the other parts.
    """

    structure: Any
    tensors: Mapping[str, Tensor]
    world: World

    def write(self, directory: Path) -> None:
        """Write this process's part of it; all processes take part.

        Raises:
            OSError: the disk is full or cannot be written.
        """
        if self.world.is_main:
            (directory / STATE_FILE).write_text(json.dumps(self.structure), encoding="utf-8")
        writer = FileSystemWriter(directory / SHARDS)
        if self.world.size == 1:
            _save_alone(dict(self.tensors), writer)
            return
        try:
            save(dict(self.tensors), storage_writer=writer, process_group=self.world.writers)
        except CheckpointException as error:
            raise _cause(error) from error


def take_snapshot(
    state: dict[str, Any], own: dict[str, Any], whole_of: WholeOf, world: World, *, copy: bool
) -> EngineSnapshot:
    """Take a state apart.

    Args:
        state: tensors, numbers, lists and dictionaries, the same in every process but for divided tensors.
        own: what this process alone has, under names of its own.
        whole_of: says which parameter a tensor is a part of the state of.
        copy: leave `state` free to change; off is for one that is written before it does.
    """
    tensors: dict[str, Tensor] = {}
    structure = {"state": _take_apart(state, "", tensors), "own": {}}
    for part in world.gather_shares(_take_apart(own, "", tensors)):
        structure["own"] |= part
    held = {name: _held(tensor, whole_of(name), copy) for name, tensor in tensors.items()}
    return EngineSnapshot(structure, held, world)


@contextmanager
def reading(directory: Path, whole_of: WholeOf, world: World) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """What a snapshot wrote, to be used in the block: the state with this process's own parts, and what each process
    had for itself alone.

    Raises:
        CheckpointError: it cannot be read, or the block finds that it does not fit; names the file.
    """
    path = directory / STATE_FILE
    try:
        structure = json.loads(path.read_text(encoding="utf-8"))
        tensors = _read_tensors(directory / SHARDS, whole_of, world)
        yield _put_together(structure["state"], tensors), _put_together(structure["own"], tensors)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except (
        OSError, EOFError, RuntimeError, KeyError, ValueError, TypeError, pickle.UnpicklingError, CheckpointException
    ) as error:  # fmt: skip
        raise CheckpointError(f"{path}: this optimizer state cannot be used: {error}") from error


def check_optimizer(state: dict[str, Any], name: str) -> None:
    """Refuse the state of another optimizer.

    Raises:
        CheckpointError: it is of another one.
    """
    if state["name"] != name:
        raise CheckpointError(
            f"belongs to optim.optimizer={state['name']}, and this run has optim.optimizer={name}. Resume with the old "
            "one, or start a new run in another --output-dir"
        )


def tensors_of(state: Mapping[str, Any]) -> list[Tensor]:
    """All tensors in an optimizer's state, however deep they lie."""
    found: dict[str, Tensor] = {}
    _take_apart(state, "", found)
    return list(found.values())


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """Take the state of a former run, and keep the settings of this one, which may have changed since."""
    settings = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(state)
    for group, chosen in zip(optimizer.param_groups, settings, strict=True):
        group.update(chosen)


def _take_apart(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """`value` with tensors replaced by their names, as JSON can hold it."""
    if isinstance(value, Tensor):
        tensors[name] = value.detach()
        return {TENSOR: name}
    if isinstance(value, Mapping):
        parts = [
            (key, _take_apart(item, f"{name}.{key}" if name else str(key), tensors)) for key, item in value.items()
        ]
        plain = all(isinstance(key, str) for key in value)
        return dict(parts) if plain else {PAIRS: [[key, item] for key, item in parts]}
    if isinstance(value, list | tuple):
        items = [_take_apart(item, f"{name}.{index}", tensors) for index, item in enumerate(value)]
        return {TUPLE: items} if isinstance(value, tuple) else items
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TrainingError(
        f"the optimizer's state has a {type(value).__name__} at {name}, which a checkpoint cannot hold; it may have "
        "tensors, numbers, strings, lists and dictionaries"
    )


def _put_together(structure: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(structure, list):
        return [_put_together(item, tensors) for item in structure]
    if not isinstance(structure, dict):
        return structure
    if TENSOR in structure:
        return tensors[structure[TENSOR]]
    if PAIRS in structure:
        return {key: _put_together(item, tensors) for key, item in structure[PAIRS]}
    if TUPLE in structure:
        return tuple(_put_together(item, tensors) for item in structure[TUPLE])
    return {key: _put_together(item, tensors) for key, item in structure.items()}


def _held(tensor: Tensor, whole: Tensor | None, copy: bool) -> Tensor:
    """A tensor on the CPU, as the part that it is of the whole."""
    found = tensor.to("cpu", copy=copy)
    return _as_part(found, whole) if isinstance(whole, DTensor) else found


def _as_part(tensor: Tensor, whole: DTensor) -> DTensor:
    mesh = whole.device_mesh
    on_cpu = DeviceMesh("cpu", mesh.mesh, mesh_dim_names=mesh.mesh_dim_names, _init_backend=False)
    return DTensor.from_local(
        tensor, on_cpu, whole.placements, run_check=False, shape=whole.shape, stride=whole.stride()
    )


def _read_tensors(directory: Path, whole_of: WholeOf, world: World) -> dict[str, Tensor]:
    reader = FileSystemReader(directory)
    wanted: dict[str, Tensor] = {}
    for name, entry in reader.read_metadata().state_dict_metadata.items():
        assert isinstance(entry, TensorStorageMetadata)
        whole = whole_of(name)
        shape = whole.to_local().shape if isinstance(whole, DTensor) else entry.size
        empty = torch.empty(shape, dtype=entry.properties.dtype)
        wanted[name] = _as_part(empty, whole) if isinstance(whole, DTensor) else empty
    if world.size == 1:
        _load_alone(wanted, reader)
    else:
        load(wanted, storage_reader=reader, process_group=world.writers)
    return {name: tensor.to_local() if isinstance(tensor, DTensor) else tensor for name, tensor in wanted.items()}


def _save_alone(tensors: dict[str, Any], writer: FileSystemWriter) -> None:
    """What `torch.distributed.checkpoint.save` does, which warns when there is one process."""
    planner = DefaultSavePlanner()
    planner.set_up_planner(tensors, writer.storage_meta(), is_coordinator=True)
    writer.set_up_storage_writer(is_coordinator=True)
    plans, metadata = planner.create_global_plan([writer.prepare_local_plan(planner.create_local_plan())])
    plan = planner.finish_plan(writer.prepare_global_plan(plans)[0])
    writer.finish(metadata, [writer.write_data(plan, planner).wait()])


def _load_alone(tensors: dict[str, Any], reader: FileSystemReader) -> None:
    """What `torch.distributed.checkpoint.load` does, which warns when there is one process."""
    planner = DefaultLoadPlanner()
    metadata = reader.read_metadata()
    planner.set_up_planner(tensors, metadata, is_coordinator=True)
    reader.set_up_storage_reader(metadata, is_coordinator=True)
    plans = planner.create_global_plan([reader.prepare_local_plan(planner.create_local_plan())])
    plan = planner.finish_plan(reader.prepare_global_plan(plans)[0])
    reader.read_data(plan, planner).wait()


def _cause(error: CheckpointException) -> Exception:
    """What went wrong in the process that it went wrong in."""
    causes = [failure[0] for failure in error.failures.values()]
    found = next((cause for cause in causes if isinstance(cause, OSError)), causes[0] if causes else None)
    return found if isinstance(found, Exception) else OSError(str(error))

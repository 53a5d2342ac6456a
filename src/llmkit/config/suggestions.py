"""What a mistyped or misplaced key may have meant."""

import difflib
from collections.abc import Iterable
from contextlib import suppress

from llmkit.config.section import PluginSection, Section
from llmkit.config.shape import Slot, slot_at, walk
from llmkit.config.tree import KeyPath, dotted
from llmkit.errors import PluginError

KNOWN_ELSEWHERE = {
    "adam_epsilon": ("eps",),
    "batch_size": ("rows_per_step", "prompts_per_step"),
    "clip_eps": ("clip_low",),
    "cutoff_len": ("max_length",),
    "epochs": ("num_epochs",),
    "eval_steps": ("eval.every_steps",),
    "eval_strategy": ("eval.every_steps",),
    "global_batch_size": ("rows_per_step", "prompts_per_step"),
    "gradient_clipping": ("max_grad_norm",),
    "log_dir": ("output_dir",),
    "lr_scheduler": ("schedule",),
    "lr_scheduler_type": ("schedule",),
    "max_completion_length": ("max_new_tokens",),
    "max_seq_length": ("max_length",),
    "max_tokens": ("max_new_tokens",),
    "micro_batch_size": ("tokens_per_micro_batch",),
    "model_name": ("model.path",),
    "model_name_or_path": ("model.path",),
    "n_epochs": ("num_epochs",),
    "num_generations": ("group_size",),
    "num_train_epochs": ("num_epochs",),
    "per_device_train_batch_size": ("rows_per_step", "prompts_per_step"),
    "report_to": ("trackers",),
    "save_steps": ("checkpoint.every_steps",),
    "save_total_limit": ("checkpoint.keep_last",),
    "torch_dtype": ("model.dtype",),
    "warmup": ("warmup_steps",),
}
"""Keys of other toolkits, with the names (or ends of paths) that they may have here."""

CUTOFF = 0.7
MOST_NAMED = 6
"""Plugins in one message."""


def closest(word: str, known: Iterable[str]) -> str | None:
    """The name most like a word: the same but for case and hyphens, its initials, or a slip of the fingers."""
    names = list(known)
    wanted = _normal(word)
    by_form = {_normal(name): name for name in names}
    if wanted in by_form:
        return by_form[wanted]
    for alias in KNOWN_ELSEWHERE.get(wanted, ()):
        if alias in names:
            return alias
    abbreviated = [name for name in names if _initials(name) == wanted]
    if len(abbreviated) == 1:
        return abbreviated[0]
    close = difflib.get_close_matches(wanted, by_form, n=1, cutoff=CUTOFF)
    return by_form[close[0]] if close else None


def suggest_key(schema: type[Section], path: KeyPath) -> str:
    """A sentence about a key that a schema does not have: what it may have meant, or the keys that there are."""
    paths = [known for known, _ in walk(Slot(schema))]
    parent = slot_at(schema, path[:-1])
    if "." in path[-1]:
        return f"A dot in a key does nothing in a file; write sections: {': '.join(path[-1].split('.'))}: ..."
    siblings = [name for name, _ in parent.children()] if parent is not None else []
    if (name := closest(path[-1], siblings)) is not None:
        return f"Did you mean '{name}'?"
    plugin = _plugin(parent)
    if plugin is not None and (others := _plugins_with(path[-1], plugin)):
        chosen = f"{dotted(path[:-1])}.name={_chosen(plugin)}"
        return f"{chosen} has no '{path[-1]}'; these {plugin.plugin_kind} have: {', '.join(others)}."
    if (elsewhere := _elsewhere(path[-1], paths)) is not None:
        return elsewhere
    if plugin is not None:
        options = ", ".join(name for name in siblings if name != "name")
        said = f"the options {options}" if options else "no options"
        return f"{dotted(path[:-1])}.name={_chosen(plugin)} has {said}."
    alike = [dotted(known) for known in paths if len(known) == len(path)]
    close = difflib.get_close_matches(dotted(path), alike, n=1, cutoff=CUTOFF)
    if close:
        return f"Did you mean '{close[0]}'?"
    return _list_of_keys(path, siblings)


def _plugin(slot: Slot | None) -> type[PluginSection] | None:
    """The section of the plugin whose options stand at a place; None where it is no plugin's."""
    section = slot.section() if slot is not None else None
    return section if section is not None and issubclass(section, PluginSection) and section.plugin_kind else None


def _chosen(section: type[PluginSection]) -> str:
    return section.model_fields["name"].default


def _plugins_with(key: str, section: type[PluginSection]) -> list[str]:
    """The first plugins of a section's kind that have an option of this name; those that cannot be used have none."""
    from llmkit import plugins

    found: list[str] = []
    for name in plugins.names(section.plugin_kind):
        with suppress(PluginError):
            if key in plugins.load(section.plugin_kind, name).Config.model_fields:
                found.append(name)
    return found[:MOST_NAMED]


def _list_of_keys(path: KeyPath, siblings: list[str]) -> str:
    if not siblings:
        return f"'{dotted(path[:-1])}' is not a section."
    listed = f"{', '.join(siblings[:20])}, ..." if len(siblings) > 20 else f"{', '.join(siblings)}."
    return f"Keys {f'of {dotted(path[:-1])}' if path[:-1] else 'of a run'}: {listed}"


def _elsewhere(key: str, paths: list[KeyPath]) -> str | None:
    """Where a key of this name lives, the shallowest first."""
    aliases = tuple(f".{alias}" for alias in KNOWN_ELSEWHERE.get(_normal(key), (_normal(key),)))
    ends = sorted((path for path in paths if f".{dotted(path)}".endswith(aliases)), key=len)
    if ends:
        places = " and ".join(dotted(path) for path in ends[:3])
        return f"'{key}' lives at {places}."
    name = closest(key, [path[-1] for path in paths])
    if name is None:
        return None
    path = min((path for path in paths if path[-1] == name), key=len)
    is_abbreviation = _initials(name) == _normal(key)
    return f"'{key}' lives at {dotted(path)}." if is_abbreviation else f"Did you mean '{dotted(path)}'?"


def _normal(word: str) -> str:
    return word.strip().lower().replace("-", "_")


def _initials(name: str) -> str:
    return "".join(part[0] for part in name.split("_") if part)

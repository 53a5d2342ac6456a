"""Figures of a server in Prometheus' text format."""


def metric_values(text: str) -> dict[str, float]:
    """Each metric's value, summed over its labels."""
    values: dict[str, float] = {}
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        name, _, rest = line.partition("{")
        value = rest.rpartition("}")[2] if rest else line.partition(" ")[2]
        name = name.partition(" ")[0]
        try:
            values[name] = values.get(name, 0.0) + float(value.split()[0])
        except (ValueError, IndexError):
            continue  # not a sample in this format
    return values

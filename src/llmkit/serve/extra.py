"""Whether the packages of the extra `serve` are there."""

from importlib.util import find_spec

from llmkit.errors import PluginError

PACKAGES = ("starlette", "uvicorn", "msgspec", "prometheus_client", "aiohttp")


def check_extra() -> None:
    """Refuse to go on without them.

    Raises:
        PluginError: one is missing; says how to install it.
    """
    missing = [name for name in PACKAGES if find_spec(name) is None]
    if missing:
        raise PluginError(f"llmkit serve needs {', '.join(missing)}: pip install 'llmkit[serve]'")

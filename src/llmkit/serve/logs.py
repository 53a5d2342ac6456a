"""Log lines of the server, for people or as JSON."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any, Literal

LOGGERS = ("llmkit", "uvicorn")


class AccessLine:
    """One request in the log; JSON logs take `facts` apart."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.facts = {name: value for name, value in facts.items() if value is not None}

    def __str__(self) -> str:
        facts = dict(self.facts)
        method, path, status = (facts.pop(name) for name in ("method", "path", "status"))
        rest = (f"{name}={value}" for name, value in facts.items())
        # A path may hold anything once it has been decoded; the log has one line for each request.
        return " ".join([method, json.dumps(path)[1:-1], str(status), *rest])


class JsonLines(logging.Formatter):
    """One JSON object a line; what is known of a request has keys of its own."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON text."""
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
        }
        if isinstance(record.args, tuple) and record.args and isinstance(record.args[0], AccessLine):
            line |= {"event": "request", **record.args[0].facts}
        else:
            line |= {"event": "message", "message": record.getMessage()}
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up_logs(log_format: Literal["text", "json"]) -> None:
    """Send what the server and uvicorn log to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    text = logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonLines() if log_format == "json" else text)
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
    logging.getLogger("llmkit").setLevel(logging.INFO)
    logging.getLogger("uvicorn").setLevel(logging.WARNING)

"""Log lines of the server, for people or as JSON."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

from llmkit.serve.gate import AccessLine

LOGGERS = ("llmkit", "uvicorn")


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

"""What a chat template reads besides the conversation."""

import json
from collections.abc import Mapping
from typing import Any

from llmkit.serve.api_errors import bad_request

RESERVED = ("messages", "tools", "documents", "add_generation_prompt", "continue_final_message")
"""These come from elsewhere, or would change what an answer is."""


def template_variables(settings: Mapping[str, Any], request: Mapping[str, Any] | None) -> str | None:
    """JSON text of the variables of the settings, and over them those of the request; None when there are none.

    Raises:
        ApiError: 400, a variable is not the request's to give.
    """
    for name in request or {}:
        if name in RESERVED or name.endswith("_token"):
            raise bad_request(
                f"chat_template_kwargs.{name}: this is not a request's to set; leave it out", "chat_template_kwargs"
            )
    variables = {**settings, **(request or {})}
    return json.dumps(variables) if variables else None

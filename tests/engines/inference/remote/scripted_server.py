"""A server with `/v1/completions` and vLLM's routes for pausing, that can be told to misbehave.

    python scripted_server.py PORT

`POST /script` sets any of its settings; `GET /script` tells what it saw. Its tokens are a function of prompt, seed,
place and weights alone.
"""

import asyncio
import json
import sys
from typing import Any

from aiohttp import web

STATE: dict[str, Any] = {
    "faults": [],  # one for each of the next requests: break, status:N, garbage, die, slow, error, end
    "seconds_per_token": 0.0,
    "weights": 0,
    "gives_token_ids": True,
    "can_pause": True,
    "logprobs": "raw",
    "is_paused": False,
    "num_requests": 0,
    "num_running": 0,
    "num_cancelled": 0,
    "num_whole": 0,
    "bodies": [],
    "adapters": [],
    "calls": [],
}
START = json.dumps(STATE)
ABORT = {"count": 0}


def tokens(body: dict[str, Any], index: int) -> list[int]:
    text: Any = body["prompt"]
    prompts: Any = text if isinstance(text, list) else [ord(letter) for letter in text]
    if prompts and isinstance(prompts[0], list):
        prompts, index = prompts[index], 0
    start = sum(prompts) + 31 * ((body.get("seed") or 0) + index) + 1000 * STATE["weights"]
    return [(start + 7 * place) % 900 + 10 for place in range(body["max_tokens"])]


def choice(body: dict[str, Any], index: int, ids: list[int], reason: str | None, stop: Any = None) -> dict[str, Any]:
    found: dict[str, Any] = {"index": index, "text": "".join(f" {one}" for one in ids), "finish_reason": reason}
    if STATE["gives_token_ids"] and body.get("return_token_ids"):
        found["token_ids"] = ids
    if "logprobs" in body:
        scale = body.get("temperature", 1) if STATE["logprobs"] == "processed" else 1
        found["logprobs"] = {
            "token_logprobs": [-0.5 / scale] * len(ids),
            "top_logprobs": [{f"token_id:{one}": -0.5 / scale, "token_id:3": -2.0} for one in ids],
        }
    return {**found, "stop_reason": stop}


async def completions(request: web.Request) -> web.StreamResponse:
    body = await request.json()
    STATE["bodies"].append(body)
    STATE["num_requests"] += 1
    fault = STATE["faults"].pop(0) if STATE["faults"] else ""
    if fault == "die":
        # No goodbye: the connection is there, and then it is not.
        import os

        os._exit(9)
    if fault.startswith("status:"):
        headers = {"retry-after": "0.05"} if fault.endswith(("503", "429")) else {}
        error = {"error": {"message": f"the script says {fault}", "code": int(fault[7:])}}
        return web.json_response(error, status=int(fault[7:]), headers=headers)
    if fault == "garbage" and not body.get("stream"):
        return web.Response(text="{'no': json", content_type="application/json")
    STATE["num_running"] += 1
    aborts = ABORT["count"]
    try:
        while STATE["is_paused"]:
            await asyncio.sleep(0.01)
        if fault == "slow":
            await asyncio.sleep(0.5)
        answer = await (streamed if body.get("stream") else whole)(request, body, fault, aborts)
        STATE["num_whole"] += 1
        return answer
    except (asyncio.CancelledError, ConnectionError):
        STATE["num_cancelled"] += 1
        raise
    finally:
        STATE["num_running"] -= 1


def num_choices(body: dict[str, Any]) -> int:
    return len(body["prompt"]) if body["prompt"] and isinstance(body["prompt"][0], list) else body.get("n", 1)


async def drawn(body: dict[str, Any], aborts: int, count: int) -> int:
    """Wait for the next token; 0 when the request was aborted."""
    await asyncio.sleep(STATE["seconds_per_token"])
    return count if aborts == ABORT["count"] else 0


async def whole(request: web.Request, body: dict[str, Any], fault: str, aborts: int) -> web.StreamResponse:
    count = 0
    while count < body["max_tokens"]:
        if not await drawn(body, aborts, 1):
            break
        count += 1
    choices = []
    for index in range(num_choices(body)):
        ids, reason, stop = cut(body, tokens(body, index)[:count])
        if count < body["max_tokens"]:
            reason = "abort"
        choices.append(choice(body, index, ids, reason, stop))
    data = json.dumps({"choices": choices, "usage": {"prompt_tokens_details": {"cached_tokens": 3}}}).encode()
    if fault == "break":
        response = web.StreamResponse(headers={"content-type": "application/json", "content-length": str(len(data))})
        await response.prepare(request)
        await response.write(data[: len(data) // 2])
        assert request.transport is not None
        request.transport.close()
        return response
    return web.Response(body=data, content_type="application/json")


def cut(body: dict[str, Any], ids: list[int]) -> tuple[list[int], str, Any]:
    stops = set(body.get("stop_token_ids") or ())
    for place, token in enumerate(ids):
        if token in stops:
            return ids[: place + 1], "stop", token
    return ids, "length", None


async def streamed(request: web.Request, body: dict[str, Any], fault: str, aborts: int) -> web.StreamResponse:
    response = web.StreamResponse(headers={"content-type": "text/event-stream"})
    await response.prepare(request)
    plans = [cut(body, tokens(body, index)) for index in range(num_choices(body))]
    for place in range(body["max_tokens"]):
        if not await drawn(body, aborts, 1):
            for index in range(len(plans)):
                await send(response, {"choices": [choice(body, index, [], "abort")]})
            break
        if fault == "break" and place == 2:
            assert request.transport is not None
            request.transport.close()
            return response
        if fault == "garbage" and place == 2:
            await response.write(b"data: {'choices': nonsense}\n\n")
        if fault == "error" and place == 2:
            await send(response, {"error": {"message": "the script says so", "code": 500}})
        if fault == "end" and place == 2:
            await response.write_eof()
            return response
        for index, (ids, reason, stop) in enumerate(plans):
            if place < len(ids):
                last = place == len(ids) - 1
                event = choice(body, index, [ids[place]], reason if last else None, stop if last else None)
                await send(response, {"choices": [event]})
    await response.write(b"data: [DONE]\n\n")
    await response.write_eof()
    return response


async def send(response: web.StreamResponse, event: dict[str, Any]) -> None:
    await response.write(b"data: " + json.dumps(event).encode() + b"\n\n")


async def health(request: web.Request) -> web.Response:
    return web.Response()


async def models(request: web.Request) -> web.Response:
    cards = [{"id": "m", "max_model_len": 512, "owned_by": "scripted"}]
    cards += [{"id": name, "parent": "m"} for name in STATE["adapters"]]
    return web.json_response({"data": cards})


async def pause(request: web.Request) -> web.Response:
    if not STATE["can_pause"]:
        raise web.HTTPNotFound
    STATE["calls"].append(f"pause {request.query['mode']}")
    STATE["is_paused"] = True
    if request.query["mode"] == "abort":
        ABORT["count"] += 1
    return web.json_response({"status": "paused"})


async def resume(request: web.Request) -> web.Response:
    STATE["calls"].append("resume")
    STATE["is_paused"] = False
    return web.json_response({"status": "resumed"})


async def load_adapter(request: web.Request) -> web.Response:
    name = (await request.json())["lora_name"]
    STATE["calls"].append(f"load {name}")
    STATE["adapters"] = [*STATE["adapters"], name]
    return web.Response(text="ok")


async def unload_adapter(request: web.Request) -> web.Response:
    name = (await request.json())["lora_name"]
    STATE["calls"].append(f"unload {name}")
    STATE["adapters"] = [one for one in STATE["adapters"] if one != name]
    return web.Response(text="ok")


async def set_script(request: web.Request) -> web.Response:
    settings = await request.json()
    STATE.update(json.loads(START) if settings.pop("reset", False) else settings)
    return web.json_response({})


async def script(request: web.Request) -> web.Response:
    return web.json_response(STATE)


def main() -> None:
    app = web.Application(client_max_size=1 << 26)
    app.add_routes(
        [
            web.post("/v1/completions", completions),
            web.get("/health", health),
            web.get("/v1/models", models),
            web.post("/pause", pause),
            web.post("/resume", resume),
            web.post("/v1/load_lora_adapter", load_adapter),
            web.post("/v1/unload_lora_adapter", unload_adapter),
            web.post("/script", set_script),
            web.get("/script", script),
        ]
    )
    # Handlers are cancelled when their client goes, as in the servers that are played here.
    web.run_app(app, host="127.0.0.1", port=int(sys.argv[1]), print=None, handler_cancellation=True)


if __name__ == "__main__":
    main()

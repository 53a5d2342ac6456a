"""MindIE Service as servers that llmkit starts, on NPUs of Ascend."""

from llmkit.engines.inference.contract import EngineContext, ServingEngine
from llmkit.engines.launchers.launching import TAKES_WEIGHTS as TAKES_WEIGHTS
from llmkit.engines.launchers.launching import LauncherConfig, launch
from llmkit.engines.servers.program import Additions, Entry, Program, Situation

SERVER, BACKEND = "ServerConfig", "BackendConfig"
DEPLOYMENT, SCHEDULE = (BACKEND, "ModelDeployConfig"), (BACKEND, "ScheduleConfig")
MODEL = (*DEPLOYMENT, "ModelConfig", 0)
DEFAULT_LENGTH = 4096
"""Most tokens of prompt and completion together where neither settings nor model say."""


def additions(situation: Situation) -> Additions:
    """NPUs by their places among those that the server is shown, and limits that have to fit one another."""
    length = situation.options.get("max_model_len") or situation.context_length or DEFAULT_LENGTH
    tokens = max(length, situation.options.get("max_batch_tokens") or length)
    entries = {
        (BACKEND, "npuDeviceIds"): [list(range(len(situation.slots)))],
        (*MODEL, "worldSize"): len(situation.slots),
        (*DEPLOYMENT, "maxSeqLen"): length,
        (*DEPLOYMENT, "maxInputTokenLen"): length - 1,
        (*SCHEDULE, "maxIterTimes"): length,
        (*SCHEDULE, "maxPrefillTokens"): tokens,
    }
    return Additions(entries=entries)


PROGRAM = Program(
    name="mindie",
    title="MindIE",
    command=("{program}",),
    executable="mindieservice_daemon",
    options={
        "model": (Entry((*MODEL, "modelWeightPath")),),
        "trust_remote_code": (Entry((*MODEL, "trustRemoteCode")),),
        "served_name": (Entry((*MODEL, "modelName")),),
        "host": (Entry((SERVER, "ipAddress")),),
        "port": (Entry((SERVER, "port")),),
        "tp": (),  # see `additions`: the number of NPUs
        "max_model_len": (),
        "max_batch_tokens": (),
        "max_running": (Entry((*SCHEDULE, "maxBatchSize")),),
    },
    devices=("npu",),
    additions=additions,
    config_name="config.json",
    config_variable="MIES_CONFIG_JSON_PATH",
    # Its management address is left out, and is that of the service then. TLS is off: llmkit stands before it, on this
    # machine.
    config_base={
        "Version": "1.0.0",
        SERVER: {
            "httpsEnabled": False,
            "interCommTLSEnabled": False,
            "fullTextEnabled": False,
            "inferMode": "standard",
            "openAiSupport": "vllm",
            "maxLinkNum": 1000,
            "tokenTimeout": 600,
            "e2eTimeout": 3600,
        },
        BACKEND: {
            "backendName": "mindieservice_llm_engine",
            "modelInstanceNumber": 1,
            "tokenizerProcessNumber": 8,
            "multiNodesInferEnabled": False,
            "interNodeTLSEnabled": False,
            "ModelDeployConfig": {
                "truncation": False,
                "ModelConfig": [
                    {
                        "modelInstanceType": "Standard",
                        "backendType": "atb",
                        "cpuMemSize": 0,
                        "npuMemSize": -1,
                        "trustRemoteCode": False,
                    }
                ],
            },
            "ScheduleConfig": {
                "templateType": "Standard",
                "templateName": "Standard_LLM",
                "cacheBlockSize": 128,
                "maxPrefillBatchSize": 50,
                "prefillTimeMsPerReq": 150,
                "prefillPolicyType": 0,
                "decodeTimeMsPerReq": 50,
                "decodePolicyType": 0,
                "maxBatchSize": 200,
                "maxPreemptCount": 0,
                "supportSelectBatch": False,
                "maxQueueDelayMicroseconds": 5000,
            },
        },
    },
    ready_path="/v2/health/ready",
    how_to_install="Install MindIE with Ascend's CANN, and `source set_env.sh` of both before llmkit",
)


class Config(LauncherConfig):
    """What MindIE can be told; llmkit writes its config.json."""


def build(config: Config, context: EngineContext) -> ServingEngine:
    """Start the servers.

    Raises:
        ConfigError: a setting cannot be had; nothing was started.
        EngineError: a server did not start or does not answer.
    """
    return launch(PROGRAM, config, context)

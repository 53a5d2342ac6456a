import asyncio

import llmkit_example

from llmkit.testing.samples import record
from llmkit.testing.tiny import tiny_codec
from llmkit.testing.workflow import RecordingEngine, WorkflowContract
from llmkit.types import SamplingParams


class TestWorkflow(WorkflowContract):
    name = "example_name"


def test_the_second_question_stands_between_two_answers():
    codec = tiny_codec()
    workflow = llmkit_example.build(llmkit_example.Config(follow_up="Sure?"))
    sampling = SamplingParams(stop_token_ids=codec.stop_token_ids)
    rollout = asyncio.run(workflow.run(record(), RecordingEngine(["6", "7"]), codec, sampling, group_id=0))
    assert rollout.completion == "6\n7"
    turns = ["user\nWhat is 3 + 4?", "assistant\n6", "user\nSure?", "assistant\n7"]
    expected = "\n".join(f"<|im_start|>{turn}<|im_end|>" for turn in turns)
    assert codec.decode(rollout.token_ids) == expected

"""The formatters that come with llmkit keep the contract that third parties test theirs with."""

from llmkit.testing.formatter import FormatterContract

HI = {"role": "user", "content": "hi"}
HELLO = {"role": "assistant", "content": "hello"}
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
CALL = {"id": "call-1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Rome"}'}}
HUMAN = {"from": "human", "value": "hi"}
GPT = {"from": "gpt", "value": "hello"}


class TestMessages(FormatterContract):
    name = "messages"
    rows = (
        {"messages": [HI, HELLO]},
        {"messages": [HI, {**HELLO, "weight": 0, "reasoning_content": "A greeting."}], "id": 3, "label": True},
        {
            "messages": [
                {"role": "developer", "content": [{"type": "text", "text": "Be brief.", "weight": 0.5}]},
                {"role": "user", "name": "ann", "content": [{"type": "image_url", "image_url": {"url": "http://a/b"}}]},
                {"role": "assistant", "content": None, "tool_calls": [CALL]},
                {"role": "tool", "tool_call_id": "call-1", "content": "sunny"},
                HELLO,
            ],
            "tools": [WEATHER],
            "parallel_tool_calls": False,
        },
    )
    bad_rows = (
        {"messages": "hi"},
        {"messages": [{"role": "nobody", "content": "hi"}]},
        {"messages": []},
        {"messages": [HI, HELLO], "label": "good"},
        {"messages": [HI, HELLO], "tools": "no JSON"},
    )


class TestShareGPT(FormatterContract):
    name = "sharegpt"
    rows = (
        {"conversations": [HUMAN, GPT]},
        {"conversation": [{"human": "hi", "assistant": "hello"}, {"human": "bye", "assistant": "see you"}]},
        {
            "conversations": [
                {"from": "human", "value": "<image>Where is this?"},
                {"from": "function_call", "value": '{"name": "weather", "arguments": {"city": "Rome"}}'},
                {"from": "observation", "value": "sunny"},
                {**GPT, "weight": 0.5},
            ],
            "system": "Be brief.",
            "tools": '[{"name": "weather", "parameters": {}}]',
            "images": ["https://example.org/a.png"],
            "label": "false",
            "id": 7,
        },
        {"conversations": [HUMAN], "chosen": GPT, "rejected": {"from": "gpt", "value": "what?"}},
    )
    bad_rows = (
        {"conversations": []},
        {"conversations": [{"from": "nobody", "value": "hi"}]},
        {"conversations": [HUMAN, GPT], "images": ["a.png"]},
        {"conversations": [HUMAN, {"from": "function_call", "value": "weather(Rome)"}]},
        {"conversations": [HUMAN], "chosen": GPT},
    )


class TestAlpaca(FormatterContract):
    name = "alpaca"
    rows = (
        {"instruction": "Say a.", "input": "", "output": "a"},
        {"instruction": "Add.", "input": "1 2", "output": "3", "system": "Brief.", "history": [["hi", "hello"]]},
        {"instruction": "What is <video>?", "output": "A cat.", "videos": ["https://example.org/a.mp4"], "label": 1},
        {"instruction": "Say a.", "chosen": "a", "rejected": "b", "tools": '[{"name": "say"}]'},
        {"instruction": "Say a.", "answer": "a", "topic": "letters"},
    )
    bad_rows = (
        {"input": "1 2", "output": "3"},
        {"instruction": "Say a.", "output": ["a"]},
        {"instruction": "Say a.", "output": "a", "history": [["hi"]]},
        {"instruction": "Say a.", "chosen": "a", "rejected": "a"},
    )


class TestQuestionAnswer(FormatterContract):
    name = "question_answer"
    rows = ({"question": "1+1?", "answer": "1+1=2\n#### 2"}, {"question": "Who?", "answer": "Me", "level": 2})
    bad_rows = ({"answer": "2"}, {"question": ["1+1?"], "answer": "x"}, {"question": "q", "answer": "a", "tools": [1]})


class TestPromptCompletion(FormatterContract):
    name = "prompt_completion"
    rows = (
        {"prompt": "Say a.", "completion": "a"},
        {"prompt": [{"role": "system", "content": "Brief."}, HI], "completion": [HELLO], "tools": [WEATHER]},
        {"prompt": "1+1?", "answer": "2", "difficulty": {"level": 1}},
    )
    bad_rows = ({"completion": "a"}, {"prompt": {"text": "Say a."}, "completion": "a"}, {"prompt": "a", "tools": 3})


class TestKTO(FormatterContract):
    name = "kto"
    rows = (
        {"prompt": "Say a.", "completion": "a", "label": True},
        {"prompt": [HI], "completion": [HELLO], "label": "0", "id": 1},
    )
    bad_rows = (
        {"prompt": "Say a.", "completion": "a"},
        {"prompt": "Say a.", "completion": "a", "label": "good"},
        {"prompt": "Say a.", "completion": "a", "label": ""},
        {"prompt": "Say a.", "label": True},
    )


class TestPreference(FormatterContract):
    name = "preference"
    rows = (
        {"prompt": "Say a.", "chosen": "a", "rejected": "b"},
        {"chosen": [HI, HELLO], "rejected": [HI, {"role": "assistant", "content": "what?"}], "margin": 0.5},
        {"prompt": [HI], "system": "Brief.", "chosen": HELLO, "rejected": "what?", "tools": [WEATHER]},
    )
    bad_rows = ({"prompt": "Say a.", "chosen": "a"}, {"prompt": "Say a.", "chosen": "a", "rejected": 5})


class TestOpenAIPreference(FormatterContract):
    name = "openai_preference"
    rows = (
        {
            "input": {"messages": [HI], "tools": [WEATHER], "parallel_tool_calls": True},
            "preferred_output": [HELLO],
            "non_preferred_output": [{"role": "assistant", "content": "what?"}],
        },
    )
    bad_rows = (
        {"input": {"messages": [HI]}, "preferred_output": [HELLO]},
        {"input": {"messages": [HI]}, "preferred_output": [HELLO], "non_preferred_output": [HELLO]},
        {"input": {"messages": [HI]}, "preferred_output": [HI], "non_preferred_output": [HELLO]},
        {"input": {"messages": [HI], "seed": 1}, "preferred_output": [HELLO], "non_preferred_output": [HI]},
        {"input": [HI], "preferred_output": [HELLO], "non_preferred_output": [HI]},
    )


class TestText(FormatterContract):
    name = "text"
    rows = ({"text": "Once upon a time."}, {"text": "", "url": "https://example.org"})
    bad_rows = ({"text": None}, {"text": ["a"]}, {"texts": "a"})


class TestTokens(FormatterContract):
    name = "tokens"
    rows = (
        {"input_ids": [5, 6, 7]},
        {"input_ids": [5, 6, 7], "labels": [-100, 6, 7], "doc": "a"},
        {"input_ids": [5, 6, 7], "loss_mask": [0, 1, 1]},
        {"input_ids": [5, 6, 7, 0], "loss_weights": [0, 0.5, 1, 0], "attention_mask": [1, 1, 1, 0]},
    )
    bad_rows = (
        {"input_ids": []},
        {"input_ids": [5, -1]},
        {"input_ids": [5, 6], "labels": [6, -100]},
        {"input_ids": [5, 6], "loss_mask": [1]},
        {"input_ids": [5, 6], "loss_mask": [1, 1], "loss_weights": [1, 1]},
    )

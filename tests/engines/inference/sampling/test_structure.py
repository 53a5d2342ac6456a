import asyncio
import json
import re
import time
from collections.abc import Callable

import jsonschema
import pytest
import torch
from transformers import PreTrainedTokenizerFast

from llmkit.embedded.untrained import make_tokenizer as make_embedded_tokenizer
from llmkit.engines.inference.sampling import compiling
from llmkit.engines.inference.sampling.batch import SamplerState, draw
from llmkit.engines.inference.sampling.context import SamplingContext
from llmkit.errors import RequestError
from llmkit.types import SamplingParams, Structure

TokenizerOf = Callable[[str], PreTrainedTokenizerFast]
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 3, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["a", "b", "été 東"]}, "minItems": 1, "maxItems": 3},
        "mail": {"type": "string", "pattern": "^[a-z]{1,8}@[a-z]{1,8}\\.org$"},
        "child": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/point"}]},
    },
    "required": ["name", "age", "tags", "mail", "child"],
    "additionalProperties": False,
    "$defs": {"point": {"type": "object", "properties": {"x": {"type": "number"}}, "required": ["x"]}},
}
GRAMMAR = r"""
# sums of letters, in as many parentheses as one likes
root ::= term (" "? [+\-*/] term){0,3}
term ::= word | "(" root ")"
word ::= [a-z\u00e9]{1,5} "x"   # greedy words would swallow the x
"""


def make_context(tokenizer: PreTrainedTokenizerFast, vocab_size: int | None = None) -> SamplingContext:
    assert isinstance(tokenizer.eos_token_id, int)
    return SamplingContext(vocab_size or len(tokenizer) + 5, (tokenizer.eos_token_id,), tokenizer)


def complete(context: SamplingContext, sampling: SamplingParams, seeds: range) -> list[list[int]]:
    """Completions by a random model, side by side; asserts that each ended as it should."""
    states = [SamplerState(sampling, seed, [1, 2], context) for seed in seeds]
    generator = torch.Generator().manual_seed(7)
    done: list[list[int]] = [[] for _ in states]
    running = list(range(len(states)))
    while running:
        logits = torch.randn(len(running), context.vocab_size, generator=generator) * 2
        drawn = draw(logits, [states[row] for row in running])
        assert not drawn.failures
        for row, token in zip(list(running), drawn.token_ids, strict=True):
            states[row].accept(token)
            done[row].append(token)
            if states[row].ended_by_structure or len(done[row]) == sampling.max_new_tokens:
                running.remove(row)
    return done


def texts(context: SamplingContext, sampling: SamplingParams, seeds: range) -> list[str]:
    """The texts of completions that ended by themselves."""
    assert context.tokenizer is not None
    finished = [ids for ids in complete(context, sampling, seeds) if ids[-1] in context.eos_token_ids]
    assert len(finished) > len(seeds) / 2
    decoded = [context.tokenizer.decode(ids, skip_special_tokens=True) for ids in finished]
    return [text for text in decoded if isinstance(text, str)]


def check_schema(text: str) -> None:
    jsonschema.validate(json.loads(text), SCHEMA)


def check_sum(text: str) -> None:
    assert all(re.fullmatch("[a-zé]{1,5}x", word) for word in re.findall("[a-zé]+", text)), text
    text = re.sub("[a-zé]+", "W", text)
    while "(" in text:
        shorter = re.sub(r"\(W( ?[-+*/]W){0,3}\)", "W", text)
        assert shorter != text
        text = shorter
    assert re.fullmatch("W( ?[-+*/]W){0,3}", text), text


CHECKS: dict[str, tuple[Structure, Callable[[str], object]]] = {
    "json": (Structure("json"), json.loads),
    "json_schema": (Structure("json_schema", json.dumps(SCHEMA)), check_schema),
    "regex": (
        Structure("regex", r"^[A-Z][0-9]{2,4}-(yes|no|é東😀)+$"),
        lambda text: re.fullmatch(r"[A-Z][0-9]{2,4}-(yes|no|é東😀)+", text) or pytest.fail(text),
    ),
    "grammar": (Structure("grammar", GRAMMAR), check_sum),
    "choice": (
        Structure("choice", '["yes", "yes, no", "a.b*", "\\"quoted\\"\\n", "東"]'),
        lambda text: ["yes", "yes, no", "a.b*", '"quoted"\n', "東"].index(text),
    ),
}


@pytest.mark.parametrize("kind", CHECKS)
@pytest.mark.parametrize("family", ["byte_level", "llama", "gemma"])
def test_whatever_a_random_model_draws_fits_the_structure(tokenizer_of: TokenizerOf, family: str, kind: str):
    structure, check = CHECKS[kind]
    sampling = SamplingParams(max_new_tokens=300, structure=structure)
    for text in texts(make_context(tokenizer_of(family)), sampling, range(24)):
        check(text)


@pytest.mark.parametrize("kind", CHECKS)
def test_penalties_bias_and_truncation_leave_the_structure_whole(tokenizer_of: TokenizerOf, kind: str):
    structure, check = CHECKS[kind]
    sampling = SamplingParams(
        max_new_tokens=400,
        temperature=1.3,
        top_k=40,
        top_p=0.95,
        min_p=0.01,
        repetition_penalty=1.2,
        presence_penalty=0.5,
        frequency_penalty=0.2,
        logit_bias=((5, 3.0), (70, -2.0)),
        banned_token_ids=(3,),
        min_new_tokens=12,
        structure=structure,
    )
    context = make_context(tokenizer_of("byte_level"))
    for text in texts(context, sampling, range(16)):
        check(text)


def test_the_embedded_tokenizer_writes_structures():
    context = make_context(make_embedded_tokenizer(), None)
    schema = {"type": "object", "properties": {"answer": {"type": "integer"}}, "required": ["answer"]}
    sampling = SamplingParams(max_new_tokens=300, structure=Structure("json_schema", json.dumps(schema)))
    for text in texts(context, sampling, range(16)):
        jsonschema.validate(json.loads(text), schema)


def test_a_complete_structure_ends_with_the_end_token_even_when_it_is_short(tokenizer_of: TokenizerOf):
    context = make_context(tokenizer_of("byte_level"))
    sampling = SamplingParams(structure=Structure("choice", '["a"]'), min_new_tokens=10)
    (token_ids,) = complete(context, sampling, range(1))
    assert context.tokenizer is not None
    assert context.tokenizer.convert_ids_to_tokens(token_ids) == ["a", "</s>"]


def test_special_stop_tokens_end_a_complete_structure_too(tokenizer_of: TokenizerOf):
    tokenizer = tokenizer_of("byte_level")
    end = tokenizer.convert_tokens_to_ids("<|end|>")
    assert isinstance(end, int)
    context = SamplingContext(len(tokenizer), (), tokenizer)
    sampling = SamplingParams(structure=Structure("choice", '["a"]'), stop_token_ids=(end,))
    assert complete(context, sampling, range(1))[0][-1] == end


def test_a_structure_ends_without_any_end_token(tokenizer_of: TokenizerOf):
    tokenizer = tokenizer_of("byte_level")
    context = SamplingContext(len(tokenizer), (), tokenizer)
    (token_ids,) = complete(context, SamplingParams(structure=Structure("choice", '["a"]')), range(1))
    assert tokenizer.decode(token_ids) == "a"


def test_a_structure_may_go_on_only_as_long_as_it_must(tokenizer_of: TokenizerOf):
    context = make_context(tokenizer_of("byte_level"))
    sampling = SamplingParams(structure=Structure("regex", "a*"), min_new_tokens=4)
    assert all(len(token_ids) > 4 for token_ids in complete(context, sampling, range(8)))


def test_a_structure_that_bans_leave_nothing_of_fails_alone(tokenizer_of: TokenizerOf):
    tokenizer = tokenizer_of("byte_level")
    context = make_context(tokenizer)
    token = tokenizer.convert_tokens_to_ids("a")
    assert isinstance(token, int)
    stuck = SamplingParams(structure=Structure("choice", '["a"]'), banned_token_ids=(token,))
    states = [SamplerState(SamplingParams(), 0, [1], context), SamplerState(stuck, 0, [1], context)]
    logits = torch.zeros(2, context.vocab_size)
    drawn = draw(logits, states)
    assert list(drawn.failures) == [1]
    assert str(drawn.failures[1]) == (
        "token 1 of the completion: banned_token_ids, structure together leave no token to draw; loosen one of them"
    )
    assert drawn.token_ids[0] == draw(logits[:1], states[:1]).token_ids[0]


@pytest.mark.parametrize(
    ("structure", "message"),
    [
        (Structure("json_schema", '{"type": \n "object",}'), r"json_schema:2:11: not JSON"),
        (Structure("json_schema", "3"), "json_schema: a schema is an object, not 3"),
        (
            Structure("json_schema", '{"properties": {"a/b": {"type": "strin"}}}'),
            r"json_schema: #/properties/a~1b: .*strin",
        ),
        (
            Structure("json_schema", '{"properties": {"a": {"items": {"not": {"type": "string"}}}}}'),
            r'json_schema: #/properties/a/items: .*"not"',
        ),
        (Structure("json_schema", '{"$ref": "#/$defs/none"}'), "json_schema: #: .*none"),
        (Structure("json_schema", '{"type": "integer", "minimum": 5, "maximum": 3}'), "json_schema: #: .*minimum"),
        (Structure("regex", "ab(c|d"), r"regex 'ab\(c\|d': column 3: unclosed group"),
        (Structure("regex", "a(?=b)"), r"column 2: look-around"),
        (Structure("choice", "[]"), "choice: give a JSON list of strings"),
        (Structure("choice", '["a", ""]'), "choice: give a JSON list of strings"),
        (Structure("choice", "yes"), "choice:1:1: not JSON"),
        (Structure("grammar", 'root ::= "a" other'), "grammar:1:14: no rule is named 'other'; there are root"),
        (Structure("grammar", 'root ::= "a"\nroot ::= "b"'), "grammar:2:1: the rule 'root' is there twice"),
        (Structure("grammar", 'start ::= "a"'), "no rule is named 'root'"),
        (Structure("grammar", 'root ::= "a'), 'grammar:1:10: a string that no " closes'),
        (Structure("grammar", 'root ::= ("a"'), r"grammar:1:10: a \( that no \) closes"),
        (Structure("grammar", "root ::= [z-a]"), "grammar:1:10: the range 'z' to 'a' runs backwards"),
        (Structure("grammar", 'root ::= "\\q"'), r"grammar:1:10: unknown escape"),
        (Structure("grammar", "just words"), "grammar:1:6: expected a rule"),
    ],
)
def test_what_makes_no_sense_is_refused_with_its_place(tokenizer_of: TokenizerOf, structure: Structure, message: str):
    context = make_context(tokenizer_of("byte_level"))
    with pytest.raises(RequestError, match=message):
        SamplerState(SamplingParams(structure=structure), 0, [1], context)
    with pytest.raises(RequestError, match=message):
        asyncio.run(context.prepare(SamplingParams(structure=structure)))


def test_a_structure_that_compiles_too_long_is_refused_and_the_event_loop_runs_on(
    tokenizer_of: TokenizerOf, monkeypatch: pytest.MonkeyPatch
):
    tokenizer = tokenizer_of("byte_level")
    context = SamplingContext(len(tokenizer), (), tokenizer, compile_timeout_seconds=0.2)
    source_of = compiling.source_of

    def slow(structure: Structure) -> object:
        if structure.text == "slow":
            time.sleep(1)
        return source_of(structure)

    monkeypatch.setattr(compiling, "source_of", slow)

    async def both() -> tuple[BaseException | None, BaseException | None]:
        requests = (SamplingParams(structure=Structure("regex", text)) for text in ("slow", "fast"))
        results = await asyncio.gather(*map(context.prepare, requests), return_exceptions=True)
        return results[0], results[1]

    context.structures.get(Structure("regex", "warm"))
    late, ready = asyncio.run(both())
    assert str(late) == "structure (regex): not compiled within 0.2 seconds; make it simpler"
    assert isinstance(late, RequestError)
    assert ready is None


def test_a_structure_is_compiled_once(tokenizer_of: TokenizerOf):
    context = make_context(tokenizer_of("byte_level"))
    structure = Structure("regex", "a+b")
    assert context.structures.get(structure) is context.structures.get(Structure("regex", "a+b"))


def test_a_structure_that_grows_too_complex_ends_its_own_row(
    tokenizer_of: TokenizerOf, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(compiling, "MAX_ITEMS_PER_STEP", 600)
    context = make_context(tokenizer_of("byte_level"))
    ambiguous = SamplingParams(structure=Structure("grammar", "root ::= s\ns ::= s s | [a-z]"))
    states = [SamplerState(ambiguous, 0, [1], context), SamplerState(SamplingParams(), 0, [1], context)]
    logits = torch.zeros(2, context.vocab_size)
    while not (drawn := draw(logits, states)).failures:
        assert drawn.token_ids[1] >= 0
        states[0].accept(context.tokenizer.convert_tokens_to_ids("a"))
    assert list(drawn.failures) == [0]
    assert "the structure cannot go on: parser error: Too many items" in str(drawn.failures[0])


def test_a_token_without_place_in_the_structure_fails_the_next_draw(tokenizer_of: TokenizerOf):
    context = make_context(tokenizer_of("byte_level"))
    state = SamplerState(SamplingParams(structure=Structure("regex", "a+")), 0, [1], context)
    state.accept(context.tokenizer.convert_tokens_to_ids("b"))
    drawn = draw(torch.zeros(1, context.vocab_size), [state])
    assert "the structure cannot go on" in str(drawn.failures[0])


def test_a_vocabulary_of_whole_words_writes_what_it_can_spell(tokenizer_of: TokenizerOf):
    sampling = SamplingParams(max_new_tokens=300, structure=Structure("regex", "(the|quick){2} (fox|dog)"))
    for text in texts(make_context(tokenizer_of("metaspace")), sampling, range(16)):
        assert re.fullmatch("(the|quick){2} (fox|dog)", text)


def test_a_tokenizer_that_cannot_be_read_is_refused(tokenizer_of: TokenizerOf):
    with pytest.raises(RequestError, match="structured output cannot read this model's tokenizer"):
        SamplerState(SamplingParams(structure=Structure("json")), 0, [1], make_context(tokenizer_of("word_piece")))


@pytest.mark.parametrize(
    ("structure", "opening"), [(Structure("json"), "["), (Structure("json_schema", '{"type": "object"}'), '{"a":')]
)
def test_json_without_a_schema_has_an_end_to_its_brackets(structure, opening):
    tokenizer = make_embedded_tokenizer()
    context = make_context(tokenizer)

    def fits(text: str) -> bool:
        state = SamplerState(SamplingParams(structure=structure), 0, [1], context)
        for token in tokenizer(text, add_special_tokens=False)["input_ids"]:
            state.accept(token)
        assert state.structure is not None
        return not state.structure.error

    closing = {"[": "]", '{"a":': "}"}[opening]
    assert fits(opening * 15 + "1" + closing * 15)
    assert fits('{"a": [1, {"b": null}], "c": "d"}')
    assert not fits(opening * 18)

import itertools
import re
from collections.abc import Callable

import pytest
from llguidance import LLMatcher, LLTokenizer
from transformers import PreTrainedTokenizerFast

from llmkit.engines.inference.sampling.grammar import to_lark


@pytest.mark.parametrize(
    ("grammar", "expression"),
    [
        ('root ::= "ab" | "a" "xb"', "ab|axb"),
        ('root ::= "a" "bx" | "ab" "b"', "abx|abb"),
        ('root ::= word "x"\nword ::= [a-b]+', "[ab]+x"),
        ('root ::= [^a]* "b"', "[^a]*b"),
        ('root ::= ("a" | "b"){2,3} "x"?', "(a|b){2,3}x?"),
        ('root ::= ( "a"\n  "b" )+ # pairs\n | "x" { 2 }', "(ab)+|x{2}"),
        ('root ::= a-b\n\na-b ::= "" | [\\x61-\\x62] root', "[ab]*"),
        ("root ::= .", "."),
        ('root ::= "a" | root "b"', "ab*"),
    ],
)
def test_a_grammar_describes_the_same_texts(
    tokenizer_of: Callable[[str], PreTrainedTokenizerFast], grammar: str, expression: str
):
    tokenizer = tokenizer_of("byte_level")
    vocabulary = LLTokenizer(tokenizer.backend_tokenizer.to_str(), eos_token=tokenizer.eos_token_id)
    matcher = LLMatcher(vocabulary, LLMatcher.grammar_from_lark(to_lark(grammar)), log_level=0)
    assert matcher.get_error() == ""
    for length in range(5):
        for characters in itertools.product("abx", repeat=length):
            text = "".join(characters)
            trial = matcher.deep_copy()
            token_ids = tokenizer.convert_tokens_to_ids(list(text))
            fits = trial.validate_tokens(token_ids) == length and trial.consume_tokens(token_ids)
            assert (fits and trial.is_accepting()) == (re.fullmatch(expression, text) is not None), text

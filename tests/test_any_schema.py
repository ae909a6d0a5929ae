"""Whatever a client sends as a schema is kept to, or refused in a sentence."""

import json
from functools import partial

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inference.errors import BadRequest
from inference.grammar import Grammars
from inference.guide import Outline
from inference.types import Constraint, Tool
from inference.vocabulary import Vocabulary

KEYWORDS = st.sampled_from(
    [
        *(
            "type",
            "enum",
            "const",
            "anyOf",
            "oneOf",
            "allOf",
            "items",
            "prefixItems",
            "not",
            "$ref",
        ),
        *("properties", "required", "pattern", "patternProperties", "additionalProperties"),
        *(
            "format",
            "multipleOf",
            "minimum",
            "maximum",
            "minLength",
            "maxItems",
            "$defs",
            "$schema",
        ),
    ]
)
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**80), 2**80),
    st.floats(),
    st.sampled_from(["string", "object", "a(", "#", "#/$defs", "https://x/y", "date", ""]),
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(KEYWORDS, inner, min_size=1, max_size=4)
    ),
    max_leaves=10,
)
SCHEMAS = st.dictionaries(KEYWORDS, VALUES, min_size=1, max_size=5)


@pytest.fixture(scope="module")
def grammars(llama) -> Grammars:
    tokenize = partial(llama.tokenize, special=False)
    return Grammars(Vocabulary(llama.pieces, llama.end_tokens, tokenize))


@settings(max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(schema=SCHEMAS, strict=st.booleans(), called=st.booleans())
def test_any_schema_is_kept_to_or_refused_in_a_sentence(grammars, schema, strict, called):
    """Also where a keyword has a value that it cannot have."""
    asked, tools = Constraint("schema", "asked", json.dumps(schema)), ()
    if called:
        asked, tools = Constraint("calls", "asked"), (Tool("f", "", schema, strict=strict),)
    try:
        assert grammars.guides(asked, tools, Outline("no", 0))
    except BadRequest as refusal:
        assert len(refusal.message) < 400 and refusal.message.endswith(".")


@pytest.mark.parametrize(
    "text", ["NaN", '{"minimum": NaN}', '{"multipleOf": 1e999}', '{"const": ' + "9" * 5000 + "}"]
)
def test_what_is_no_json_is_no_schema(grammars, text):
    with pytest.raises(BadRequest, match="asked"):
        grammars.guides(Constraint("schema", "asked", text), (), Outline("no", 0))

"""The description of the API is true: requests made from it never make the server fail."""

import msgspec
import pytest
from tests.serve.conftest import KEY

from llmkit.serve.openapi import describe
from llmkit.serve.routes import ENDPOINTS

ERRORS_OF_OURS = range(500, 503)
FUZZED = [one for one in ENDPOINTS if one.path != "/v1/load_lora_adapter"]


def test_every_route_and_every_schema_is_in_it():
    document = describe(ENDPOINTS)
    described = {(method.upper(), path) for path, one in document["paths"].items() for method in one}
    assert described == {(one.method, one.path.replace(":path}", "}")) for one in ENDPOINTS}
    text = msgspec.json.encode(document).decode()
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(document["components"]["schemas"])


@pytest.mark.parametrize("endpoint", FUZZED, ids=lambda one: one.path)
def test_requests_made_from_it_never_fail_the_server(server, endpoint, schema, examples):
    from hypothesis import HealthCheck, Phase, given, settings

    operation = schema[endpoint.path.replace(":path}", "}")][endpoint.method]

    @given(case=operation.as_strategy())
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def never_fails(case):
        response = case.call(base_url=server.url, headers={"authorization": f"Bearer {KEY}"}, timeout=30)
        assert response.status_code not in ERRORS_OF_OURS, response.text
        case.validate_response(response, checks=[schemathesis_checks().response_schema_conformance])

    never_fails()


def schemathesis_checks():
    from schemathesis.specs.openapi import checks

    return checks


@pytest.fixture(scope="module", params=[5, pytest.param(150, marks=pytest.mark.slow)])
def examples(request) -> int:
    return request.param


@pytest.fixture(scope="module")
def schema(server):
    import schemathesis

    return schemathesis.openapi.from_dict(server.call("/openapi.json")[2])

"""The API as its OpenAPI document describes it, tried with made-up requests by schemathesis."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import response_schema_conformance, status_code_conformance

from groundglass.apps.service.app import build
from groundglass.apps.service.config import ServiceConfig
from groundglass.apps.service.service import Service
from helpers.server import Server

described = build(cast(Service, SimpleNamespace(config=ServiceConfig(Path())))).openapi()
schema = schemathesis.openapi.from_dict(described)


def test_the_server_gives_the_document_that_is_tried(server: Server) -> None:
    with server.client() as client:
        assert client.get("/api/openapi.json").json() == described


@schema.parametrize()
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_route_answers_as_described(case: schemathesis.Case[Any], server: Server) -> None:
    answer = case.call(base_url=server.url)
    case.validate_response(answer, checks=[not_a_server_error, status_code_conformance, response_schema_conformance])

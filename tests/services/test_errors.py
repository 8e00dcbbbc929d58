import json

import pytest

from cachedeval.engine.errors import CachedevalError, InputError
from cachedeval.services import errors
from cachedeval.services.errors import ServiceError, error_of_status

ALL = [
    found
    for found in vars(errors).values()
    if isinstance(found, type) and issubclass(found, ServiceError)
]


def of(status: int, **error: object) -> ServiceError:
    return error_of_status(status, json.dumps(error), service="the service")


@pytest.mark.parametrize(
    ("status", "kind", "retried", "fatal"),
    [
        (400, "bad_request", False, False),
        (401, "unauthorised", False, True),
        (402, "payment_required", False, True),
        (403, "unauthorised", False, True),
        (404, "not_found", False, False),
        (408, "timed_out", True, False),
        (409, "server_error", True, False),
        (413, "prompt_too_long", False, False),
        (418, "bad_request", False, False),
        (422, "bad_request", False, False),
        (429, "rate_limited", True, False),
        (500, "server_error", True, False),
        (503, "server_error", True, False),
        (529, "server_error", True, False),
    ],
)
def test_the_table(status: int, kind: str, *, retried: bool, fatal: bool) -> None:
    failure = of(status, message="so it is")
    assert (failure.kind, failure.max_attempts > 1, failure.fatal) == (kind, retried, fatal)
    assert failure.status == status
    assert str(failure).startswith(f"the service answered {status}")


def test_each_kind_has_its_own_name() -> None:
    assert len({failure.kind for failure in ALL}) == len(ALL)
    assert all(issubclass(failure, CachedevalError) for failure in ALL)


def test_what_ends_a_run_is_bad_input() -> None:
    assert {failure.kind for failure in ALL if failure.fatal} == {
        "unauthorised",
        "payment_required",
        "no_such_model",
        "redirected",
        "unsupported_parameter",
    }
    assert all(issubclass(failure, InputError) for failure in ALL if failure.fatal)


@pytest.mark.parametrize(
    "error",
    [
        # Cerebras, OpenAI, vLLM, llama.cpp
        {"message": "Please reduce the length of the messages", "code": "context_length_exceeded"},
        {"error": {"message": "too much", "code": "context_length_exceeded"}},
        {"error": {"message": "This model's maximum context length is 2048 tokens.", "code": 400}},
        {"error": {"message": "the request exceeds the available context size", "code": 400}},
    ],
)
def test_an_overlong_prompt_is_distinguished_from_other_bad_requests(
    error: dict[str, object],
) -> None:
    assert of(400, **error).kind == "prompt_too_long"
    assert of(400, message="temperature must be below 2").kind == "bad_request"


def test_an_unknown_model_is_distinguished_from_an_unknown_address() -> None:
    known = {
        "message": "Model x does not exist or you do not have access to it.",
        "code": "model_not_found",
    }
    assert of(404, **known).kind == "no_such_model"
    assert of(404, error={"message": "The model `x` does not exist.", "code": 404}).fatal
    nginx = error_of_status(404, b"<html>nginx</html>", service="the service")
    assert nginx.kind == "not_found"
    assert "base URL" in str(nginx)


def test_a_message_is_one_line_and_not_endless() -> None:
    said = str(of(500, message="line\nline\n" * 1000))
    assert "\n" not in said
    assert len(said) < 400


def test_a_wrong_key_error_does_not_quote_the_service() -> None:
    assert "sk-123" not in str(of(401, message="Incorrect API key provided: sk-123"))


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"no"', b"\xff\xfe", b'{"error": "no"}'])
def test_any_body_will_do(body: bytes) -> None:
    assert error_of_status(500, body, service="the service").kind == "server_error"

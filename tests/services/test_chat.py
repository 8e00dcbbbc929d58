from cachedeval.services.chat import ChatRequest


def test_a_requests_body_has_what_was_set() -> None:
    request = ChatRequest(model="m", messages=({"role": "user", "content": "hi"},))
    assert request.body() == {
        "model": "m",
        "messages": [{"role": "user", "content": "hi"}],
        "max_completion_tokens": 1024,
        "temperature": 0.0,
    }
    full = ChatRequest(
        model="m",
        messages=(),
        temperature=None,
        seed=0,
        response_format={"type": "text"},
        extra={"reasoning_effort": "low"},
    )
    assert full.body() == {
        "model": "m",
        "messages": [],
        "max_completion_tokens": 1024,
        "seed": 0,
        "response_format": {"type": "text"},
        "reasoning_effort": "low",
    }

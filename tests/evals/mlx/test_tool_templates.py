"""Tools, and calls of them, in the data reach a real chat template."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny_model import make_tiny_model

from cachedeval.evals.data import read_questions
from cachedeval.evals.generation import ids_of
from cachedeval.evals.mlx.texts import TokenizerTexts, open_tokenizer

TEMPLATE = (
    "{% for tool in tools or [] %}[tool {{ tool.function.name }}]{% endfor %}"
    "{% for message in messages %}[{{ message.role }}]{{ message.content or '' }}"
    "{% for call in message.tool_calls or [] %}[call {{ call.function.name }}"
    "{% for name, value in call.function.arguments.items() %} {{ name }}={{ value }}{% endfor %}]"
    "{% endfor %}{% endfor %}[assistant]"
)
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> TokenizerTexts:
    model = make_tiny_model(tmp_path_factory.mktemp("tools") / "model")
    path = model / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": TEMPLATE}))
    return open_tokenizer(model)


@pytest.mark.parametrize(
    "arguments", [{"city": "Oslo"}, '{"city": "Oslo"}'], ids=["object", "text"]
)
def test_the_template_reads_tools_and_calls(
    texts: TokenizerTexts, tmp_path: Path, arguments: Any
) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "weather", "arguments": arguments}}
    messages = [
        {"role": "user", "content": "Rain?"},
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "content": "dry", "tool_call_id": "1"},
        {"role": "user", "content": "And now?"},
        {"role": "assistant", "tool_calls": [call]},
    ]
    data = tmp_path / "tools.jsonl"
    data.write_text(json.dumps({"messages": messages, "tools": [TOOL]}))
    (question,) = read_questions(data)
    rendered = texts.render(question.messages, question.tools, {})
    assert texts.detokenize(ids_of(rendered.tokens)) == (
        "[tool weather][user]Rain?[assistant][call weather city=Oslo][tool]dry"
        "[user]And now?[assistant]"
    )
    assert json.loads(question.reference or "")
    bare = texts.render(question.messages, (), {})
    assert bare.tokens != rendered.tokens

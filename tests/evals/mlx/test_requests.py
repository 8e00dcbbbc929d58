from collections.abc import Callable
from pathlib import Path

import pytest

from cachedeval.engine.errors import InputError
from cachedeval.evals.mlx.model import load_model
from cachedeval.evals.mlx.prompts import render_prompt


def test_the_chat_template_writes_the_prompt(tiny_folder: Callable[..., Path]) -> None:
    tokenizer = load_model(tiny_folder()).tokenizer
    tokens = render_prompt(
        tokenizer,
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi 🙂"}],
    )
    assert tokenizer.decode(tokens) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi 🙂<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert all(type(token) is int for token in tokens)


def test_without_a_template_the_contents_are_the_prompt(tiny_folder: Callable[..., Path]) -> None:
    tokenizer = load_model(tiny_folder(chat_template=False)).tokenizer
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert tokenizer.decode(render_prompt(tokenizer, messages)) == "Be brief.\n\nHi\n\n"


def test_a_lone_surrogate_is_told(tiny_folder: Callable[..., Path]) -> None:
    tokenizer = load_model(tiny_folder()).tokenizer
    with pytest.raises(InputError, match=r"the user message .*U\+D83D\) at character 4"):
        render_prompt(tokenizer, [{"role": "user", "content": "hi \ud83d"}])


def test_what_a_template_refuses_is_told_in_one_line(tiny_folder: Callable[..., Path]) -> None:
    tokenizer = load_model(tiny_folder()).tokenizer
    tokenizer.chat_template = "{{ raise_exception('System role not supported\\nreally') }}"
    with pytest.raises(InputError, match=r"refuses the messages: System role not supported$"):
        render_prompt(tokenizer, [{"role": "system", "content": "hi"}])


def test_a_template_that_asks_for_the_date_is_told_the_same_every_day(
    tiny_folder: Callable[..., Path],
) -> None:
    tokenizer = load_model(tiny_folder()).tokenizer
    messages = [{"role": "user", "content": "hi"}]
    llama = (
        "{%- if not date_string is defined %}{%- if strftime_now is defined %}"
        "{%- set date_string = strftime_now('%d %b %Y') %}{%- endif %}{%- endif %}"
        "{{ date_string }}: {{ messages[0]['content'] }}"
    )
    wanted = {
        llama: "26 Jul 2024: hi",
        '{%- macro today() %}{{ strftime_now( "%Y-%m-%d" ) }}{%- endmacro %}{{ today() }}': (
            "2024-07-26"
        ),
        "{{ messages[0]['content'] }}": "hi",
    }
    for template, prompt in wanted.items():
        tokenizer.chat_template = template
        assert tokenizer.decode(render_prompt(tokenizer, messages)) == prompt
    tokenizer.chat_template = "{% set now = strftime_now %}{{ now('%Y') }}"
    with pytest.raises(InputError, match="refuses the messages: it asks for the date in a way"):
        render_prompt(tokenizer, messages)

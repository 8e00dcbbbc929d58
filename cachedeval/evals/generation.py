"""Answering questions, in three steps.

- `render`: a chat and the tokenizer's files and libraries, to token ids.
- `decode`: the weights, an adapter, token ids and sampling parameters, to token ids.
- `text`: token ids, to the answer without the thought before it.

So a new version of a tokenizer's library renders again, and decodes nothing if the tokens are the
same. An answer that was cut off at its bound is decoded again for a longer one; one that ended by
itself serves every bound.
"""

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from cachedeval.engine.errors import CachedevalError, InputError
from cachedeval.engine.node import Bound, Computed, node
from cachedeval.engine.resource import Handle, Resource
from cachedeval.evals.reasoning import Markers, Parts

__all__ = [
    "EXECUTOR",
    "AdapterError",
    "AdapterResource",
    "Answered",
    "DecodeInputs",
    "Decoded",
    "Generation",
    "Generator",
    "NoAnswerError",
    "PromptError",
    "RenderInputs",
    "Rendered",
    "Texts",
    "decode",
    "ids_of",
    "packed",
    "render",
    "text",
]

EXECUTOR = "mlx"
"""The executor of all steps that run a local model: one thread, on which mlx was opened."""

_TOKEN = array("I").itemsize


def packed(ids: Sequence[int]) -> bytes:
    """Return token ids as bytes, which are read in no time."""
    return array("I", ids).tobytes()


def ids_of(tokens: bytes) -> list[int]:
    """Return the token ids in bytes of `packed`."""
    found = array("I")
    found.frombytes(tokens)
    return found.tolist()


class Rendered(msgspec.Struct, frozen=True):
    """A prompt, as the model reads it."""

    tokens: bytes
    """The token ids, of `packed`."""
    ends: tuple[int, ...]
    """The tokens that end an answer, ascending."""


class Decoded(msgspec.Struct, frozen=True):
    """What a model wrote."""

    tokens: bytes
    """The token ids, of `packed`, with the one that ended the answer."""
    finish: Literal["stop", "length", "context"]
    """`stop`: it ended by itself or at a stop text; `length`: at the bound; `context`: the model can
    read and write no more."""


class Generation(msgspec.Struct, frozen=True):
    """The answer of a model. It holds nothing else, so that equal answers are equal outputs.

    The record's provenance has the `reasoning` before it, and whether it was `truncated`.
    """

    text: str


Answered = tuple[int, Computed[Decoded] | Exception]
"""The index of a call in its batch, and its answer."""


class AdapterError(InputError):
    """An adapter cannot be used with its model; other adapters are not affected."""


class PromptError(InputError):
    """A chat cannot be rendered: the template refuses it, or it is no valid text."""


class NoAnswerError(CachedevalError):
    """A model wrote a thought and no answer.

    Attributes:
        reasoning: the thought.
        truncated: whether it was cut off at a bound.
    """

    kind = "NoAnswer"

    def __init__(self, reasoning: str, decoded: Decoded) -> None:
        self.reasoning = reasoning
        self.truncated = decoded.finish != "stop"
        count = len(decoded.tokens) // _TOKEN
        where = {
            "length": f"did not end within {count} tokens: raise --max-tokens, or",
            "context": f"did not end before the model's context was full, after {count} tokens:",
            "stop": f"did not end, though the model stopped after {count} tokens:",
        }[decoded.finish]
        super().__init__(
            f"the thought {where} turn thinking off (for many models: "
            """--chat-template-args '{"enable_thinking": false}')"""
        )


class Generator(Protocol):
    """A loaded model that answers prompts."""

    def generate(
        self, adapter: Path | None, batch: "Sequence[DecodeInputs]"
    ) -> Iterator[Answered | None]:
        """Yield the index and the answer of each of the inputs as soon as it exists.

        Args:
            adapter: the folder of the adapter that answers; None is the base model.
            batch: what is asked; their `model` and `adapter` play no part.

        Yields:
            Index and answer, or None between steps.
        """
        ...


class Texts(Protocol):
    """A loaded tokenizer."""

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Any],
        template_args: Mapping[str, Any],
    ) -> Rendered:
        """Return the tokens of a chat, ready to be answered.

        Raises:
            InputError: a message is no valid text, or the chat template refuses the chat.
        """
        ...

    def read(
        self, prompt: Rendered, decoded: Decoded, stop: Sequence[str], markers: Markers | None
    ) -> tuple[Parts, bool]:
        """Return thought and answer, and whether a stop text ended them.

        Args:
            prompt: the prompt, which may have opened the thought.
            decoded: what the model wrote.
            stop: texts that end an answer, and are no part of it.
            markers: the texts around a thought; None for those of the chat template.
        """
        ...


class AdapterResource(Resource[Path]):
    """An adapter by its content; it opens to its folder.

    Args:
        path: its folder.
        identify: returns what the adapter in the folder is.
    """

    def __init__(self, path: Path, identify: Callable[[Path], Any]) -> None:
        super().__init__("adapter", identify(path), lambda: path)
        self._path = path
        self._identify = identify

    def check(self) -> None:
        """Check, after it is loaded, that the folder still holds what the keys are made of.

        Raises:
            InputError: it was changed in the meantime.
        """
        if self._identify(self._path) != self.identity:
            raise InputError(
                f"adapter {self._path} was changed while it was being evaluated: run again"
            )


class RenderInputs(msgspec.Struct, frozen=True):
    """The inputs of one rendering.

    Attributes:
        tokenizer: the tokenizer.
        messages: the chat to answer, as the data has it.
        tools: the tools that the model may call.
        template_args: what the chat template is given besides, by name.
    """

    tokenizer: Handle[Texts]
    messages: Sequence[Mapping[str, Any]]
    tools: Sequence[Any] = ()
    template_args: Mapping[str, Any] = {}


@node(version="1", name="render", batch=True, executor=EXECUTOR)
def render(batch: Sequence[RenderInputs]) -> Iterator[tuple[int, Rendered | Exception] | None]:
    """Render chats to tokens."""
    for index, inputs in enumerate(batch):
        with ExitStack() as held:
            try:
                tokenizer = held.enter_context(inputs.tokenizer)
            except InputError as error:
                error.fatal = True
                raise
            try:
                rendered = tokenizer.render(inputs.messages, inputs.tools, inputs.template_args)
            except InputError as error:
                yield index, PromptError(str(error))
                continue
            yield index, rendered


class DecodeInputs(msgspec.Struct, frozen=True):
    """The inputs of one decoding.

    Attributes:
        model: the base model's weights.
        adapter: the adapter's folder, or None for the base model alone.
        prompt: what the model reads.
        max_tokens: the bound on the answer's length, in tokens.
        temperature: 0 is greedy.
        top_p: the nucleus sampled from, above temperature 0.
        top_k: how many of the most probable tokens are sampled from; 0 for all.
        min_p: the least probability sampled from, relative to the most probable token.
        repetition_penalty: 1 is none.
        seed: of the sampling; None at temperature 0.
        stop: texts that end an answer.
        tokenizer: knows the tokens' texts, for `stop`; None without.
    """

    model: Handle[Generator]
    adapter: Handle[Path] | None
    prompt: Rendered
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None
    stop: Sequence[str] = ()
    tokenizer: Handle[Texts] | None = None


def _within(decoded: Decoded, max_tokens: int) -> Decoded | None:
    """Return what is decoded with another bound; None if that takes more tokens than there are."""
    count = len(decoded.tokens) // _TOKEN
    if count > max_tokens or (count == max_tokens and decoded.finish == "context"):
        return Decoded(decoded.tokens[: _TOKEN * max_tokens], "length")
    return None if decoded.finish == "length" and count < max_tokens else decoded


@node(
    version="1",
    name="decode",
    batch=True,
    executor=EXECUTOR,
    bound=Bound("max_tokens", _within),
)
def decode(batch: Sequence[DecodeInputs]) -> Iterator[Answered | None]:
    """Answer prompts, one adapter after the other, each with all its prompts together."""
    models: dict[str, dict[str, list[int]]] = {}
    for index, inputs in enumerate(batch):
        adapter = inputs.adapter.resource.identified.digest if inputs.adapter else ""
        model = inputs.model.resource.identified.digest
        models.setdefault(model, {}).setdefault(adapter, []).append(index)
    for adapters in models.values():
        yield from _sweep(batch, list(adapters.values()))


def _sweep(batch: Sequence[DecodeInputs], groups: Sequence[list[int]]) -> Iterator[Answered | None]:
    """Answer with one model, which stays open from the first adapter to the last."""
    with ExitStack() as held:
        try:
            generator = held.enter_context(batch[groups[0][0]].model)
        except InputError as error:
            # Nothing can be answered, so the run ends as soon as this is known.
            error.fatal = True
            raise
        for indexes in groups:
            left = set(indexes)
            try:
                for answered in _answer(generator, batch, indexes):
                    yield answered
                    if answered is not None:
                        left.discard(answered[0])
            except Exception as error:  # noqa: BLE001  it belongs to this adapter and to no other
                told = AdapterError(str(error)) if isinstance(error, InputError) else error
                yield from ((index, told) for index in indexes if index in left)


def _answer(
    generator: Generator, batch: Sequence[DecodeInputs], indexes: Sequence[int]
) -> Iterator[Answered | None]:
    first = batch[indexes[0]]
    adapter = None if first.adapter is None else first.adapter.resource
    # The folder of this adapter, not that of an equal one that was opened before: the other may
    # have been retrained since.
    folder = None if adapter is None else adapter.open()
    check = adapter.check if isinstance(adapter, AdapterResource) else None
    for result in generator.generate(folder, [batch[index] for index in indexes]):
        if result is None:
            yield None
            continue
        if check is not None:  # with the first answer, the adapter has been loaded
            check()
            check = None
        yield indexes[result[0]], result[1]


@node(version="1", name="text", executor=EXECUTOR)
def text(
    tokenizer: Handle[Texts],
    prompt: Rendered,
    decoded: Decoded,
    stop: Sequence[str] = (),
    markers: Sequence[str] | None = None,
) -> Computed[Generation]:
    """Return the answer in what a model wrote.

    Args:
        tokenizer: the tokenizer.
        prompt: what the model read.
        decoded: what it wrote.
        stop: texts that end an answer, and are no part of it.
        markers: the texts before and after a thought; None for those of the chat template.

    Raises:
        NoAnswerError: it wrote a thought that does not end, or was cut off right behind it.
    """
    with tokenizer as texts:
        parts, stopped = texts.read(
            prompt, decoded, stop, None if markers is None else Markers(*markers)
        )
    truncated = decoded.finish != "stop" and not stopped
    answer = parts.answer
    if answer is None or (truncated and parts.reasoning is not None and not answer.strip()):
        raise NoAnswerError(parts.reasoning or "", decoded)
    about: dict[str, Any] = {}
    if parts.reasoning is not None:
        about["reasoning"] = parts.reasoning
    if truncated:
        about["truncated"] = True
    return Computed(Generation(answer), provenance=about)

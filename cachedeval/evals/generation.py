"""Answering questions: the step from model, adapter, chat and sampling parameters to a text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import msgspec

from cachedeval.engine.errors import InputError
from cachedeval.engine.node import Computed, node
from cachedeval.engine.resource import Handle, Resource

__all__ = [
    "EXECUTOR",
    "AdapterError",
    "AdapterResource",
    "Answered",
    "Generation",
    "GenerationInputs",
    "Generator",
    "Prompt",
    "generation",
]

EXECUTOR = "mlx"
"""The executor of all steps that run a local model: one thread, on which mlx was opened."""


class Generation(msgspec.Struct, frozen=True):
    """What a model answered. Nothing else is in it, so that equal answers are equal outputs."""

    text: str
    finish_reason: str
    """`stop` at an end-of-sequence token, `length` at the bound."""


class Prompt(msgspec.Struct, frozen=True):
    """What a model is asked, and how its answer is drawn."""

    messages: list[dict[str, str]]
    max_tokens: int
    temperature: float
    top_p: float
    seed: int | None
    """None at temperature 0, where it plays no part."""


Answered = tuple[int, Computed[Generation] | Exception]
"""The place of a call or prompt among those that were given, and its answer."""


class AdapterError(InputError):
    """An adapter cannot be used with its model; what others answer is not touched by that."""


class Generator(Protocol):
    """A loaded model that answers prompts."""

    def generate(
        self, adapter: Path | None, prompts: Sequence[Prompt]
    ) -> Iterator[Answered | None]:
        """Yield each prompt's index and answer as soon as it is there; None between steps."""
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
        """Make sure, once it is loaded, that the folder still held what the keys say.

        Raises:
            InputError: it was changed in the meantime.
        """
        if self._identify(self._path) != self.identity:
            raise InputError(
                f"adapter {self._path} was changed while it was being evaluated: run again"
            )


class GenerationInputs(msgspec.Struct, frozen=True):
    """The inputs of one generation.

    Attributes:
        model: the base model.
        adapter: the adapter's folder, or None for the base model alone.
        messages: the chat to answer, `role` and `content` each.
        max_tokens: the bound on the answer's length, in tokens.
        temperature: 0 is greedy.
        top_p: the nucleus sampled from, above temperature 0.
        seed: of the sampling; None at temperature 0.
    """

    model: Handle[Generator]
    adapter: Handle[Path] | None
    messages: Sequence[Mapping[str, str]]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def prompt(self) -> Prompt:
        """Return what the model is asked."""
        return Prompt(
            [dict(message) for message in self.messages],
            self.max_tokens,
            self.temperature,
            self.top_p,
            self.seed,
        )


@node(version="3", name="generation", batch=True, executor=EXECUTOR)
def generation(batch: Sequence[GenerationInputs]) -> Iterator[Answered | None]:
    """Answer questions, one adapter after the other, each with all its questions together."""
    models: dict[str, dict[str, list[int]]] = {}
    for index, inputs in enumerate(batch):
        adapter = inputs.adapter.resource.identified.digest if inputs.adapter else ""
        model = inputs.model.resource.identified.digest
        models.setdefault(model, {}).setdefault(adapter, []).append(index)
    for adapters in models.values():
        yield from _sweep(batch, list(adapters.values()))


def _sweep(
    batch: Sequence[GenerationInputs], groups: Sequence[list[int]]
) -> Iterator[Answered | None]:
    """Answer with one model, which is held from the first adapter to the last."""
    with ExitStack() as held:
        try:
            generator = held.enter_context(batch[groups[0][0]].model)
        except InputError as error:
            # As bad as any other input, and told as soon as it is known.
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
    generator: Generator, batch: Sequence[GenerationInputs], indexes: Sequence[int]
) -> Iterator[Answered | None]:
    first = batch[indexes[0]]
    adapter = None if first.adapter is None else first.adapter.resource
    # Each adapter's own folder, not that of an equal one that was opened before: the other may
    # have been retrained since.
    folder = None if adapter is None else adapter.open()
    check = adapter.check if isinstance(adapter, AdapterResource) else None
    for result in generator.generate(folder, [batch[index].prompt() for index in indexes]):
        if result is None:
            yield None
            continue
        if check is not None:  # with the first answer, the adapter has been loaded
            check()
            check = None
        yield indexes[result[0]], result[1]

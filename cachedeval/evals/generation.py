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
    "generation",
]

EXECUTOR = "mlx"
"""The executor of all steps that run a local model: one thread, on which mlx was opened."""


class Generation(msgspec.Struct, frozen=True):
    """The answer of a model. It holds nothing else, so that equal answers are equal outputs."""

    text: str
    finish_reason: str
    """`stop` at an end-of-sequence token, `length` at the bound."""


Answered = tuple[int, Computed[Generation] | Exception]
"""The index of a call in its batch, and its answer."""


class AdapterError(InputError):
    """An adapter cannot be used with its model; other adapters are not affected."""


class Generator(Protocol):
    """A loaded model that answers questions."""

    def generate(
        self, adapter: Path | None, batch: "Sequence[GenerationInputs]"
    ) -> Iterator[Answered | None]:
        """Yield the index and the answer of each of the inputs as soon as it exists.

        Args:
            adapter: the folder of the adapter that answers; None is the base model.
            batch: what is asked; their `model` and `adapter` play no part.

        Yields:
            Index and answer, or None between steps.
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
    generator: Generator, batch: Sequence[GenerationInputs], indexes: Sequence[int]
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

"""Answering questions: the step from model, adapter, chat and sampling parameters to a text."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import msgspec

from cachedeval.engine.errors import InputError
from cachedeval.engine.node import Computed, node
from cachedeval.engine.resource import Handle, Resource

__all__ = [
    "LANE",
    "AdapterResource",
    "Generation",
    "GenerationInputs",
    "Generator",
    "Prompt",
    "generation",
]

LANE = "mlx"
"""The lane of all steps that run a local model: one thread, on which mlx was opened."""


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


class Generator(Protocol):
    """A loaded model that answers prompts."""

    def generate(
        self, adapter: Path | None, prompts: Sequence[Prompt]
    ) -> Iterator[tuple[int, Computed[Generation] | Exception] | None]:
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


@dataclass(frozen=True, slots=True)
class GenerationInputs:
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


@node(version="1", name="generation", batch=True, lane=LANE)
def generation(
    batch: Sequence[GenerationInputs],
) -> Iterator[tuple[int, Computed[Generation] | Exception] | None]:
    """Answer questions, one adapter after the other, each with all its questions together."""
    groups: dict[tuple[str, str], list[int]] = {}
    for index, inputs in enumerate(batch):
        adapter = inputs.adapter.resource.identified.digest if inputs.adapter else ""
        model = inputs.model.resource.identified.digest
        groups.setdefault((model, adapter), []).append(index)
    for indexes in groups.values():
        first = batch[indexes[0]]
        try:
            yield from _answer(first, indexes, [batch[index].prompt() for index in indexes])
        except InputError as error:
            # A model that cannot be loaded, an adapter that does not fit it: as bad as any other
            # input, and told as soon as it is known.
            error.fatal = True
            raise


def _answer(
    first: GenerationInputs, indexes: Sequence[int], prompts: Sequence[Prompt]
) -> Iterator[tuple[int, Computed[Generation] | Exception] | None]:
    adapter = None if first.adapter is None else first.adapter.resource
    # Each adapter's own folder, not that of an equal one that was opened before: the other may
    # have been retrained since.
    folder = None if adapter is None else adapter.open()
    check = adapter.check if isinstance(adapter, AdapterResource) else None
    with first.model as generator:
        for result in generator.generate(folder, prompts):
            if result is None:
                yield None
                continue
            if check is not None:  # with the first answer, the adapter has been loaded
                check()
                check = None
            yield indexes[result[0]], result[1]

"""Decodes many prompts together, so that other prompts in the batch do not change an answer.

Built on mlx_lm's `BatchGenerator`, by its public methods alone. Each prompt is read alone and
inserted with its cache (`prefix`), so that a batch decodes and does nothing else. Each row has its
own sampler (`sampling.Chooser`), which also computes by how much its token leads, within the
same asynchronous pass. `BatchGenerator` hands a token out while it computes the next one. Where the
lead is under the bound, the canonical pass (`near_ties`) decides then, one step behind; if it decides
on another token, the row is taken out and put back with the canonical cache, and the tokens that it had
ahead are dropped.
"""

import copy
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from cachedeval.engine.errors import InputError
from cachedeval.evals.mlx.model import LoadedModel
from cachedeval.evals.mlx.near_ties import CanonicalRow, near_tie_bound
from cachedeval.evals.mlx.prefix import Cache, can_shorten, prefill
from cachedeval.evals.mlx.runtime import mx
from cachedeval.evals.mlx.sampling import (
    REPETITION_CONTEXT,
    Chooser,
    NonFiniteLogitsError,
    Penalty,
    Perturb,
)
from cachedeval.evals.proofs import BATCH_SIZE

from mlx_lm.generate import GenerationBatch, generate_step  # isort: skip - after the runtime (BLAS)
from mlx_lm.generate import BatchGenerator, generation_stream  # isort: skip - after the runtime
from mlx_lm.generate import StopSequences  # isort: skip - after the runtime
from mlx_lm.sample_utils import make_repetition_penalty  # isort: skip - after the runtime

__all__ = [
    "BATCH_SIZE",
    "DecodeEvent",
    "DecodeRequest",
    "DecodeStats",
    "Decoded",
    "FinishReason",
    "OneByOne",
    "Room",
    "decode",
]

_NO_STOP = StopSequences()
"""Rows have different ends, and a stop text is no sequence of tokens: `_accept` looks at each token."""

_BLOCK = 256  # tokens by which mlx_lm's caches grow
_COPIES = 2  # of a batch's caches are in memory while a row joins or leaves it


@dataclass(frozen=True, slots=True)
class DecodeRequest:
    """One prompt, and how its answer is drawn.

    Attributes:
        tokens: The prompt's token ids, at least one.
        max_tokens: The bound on the answer's tokens, at least 1.
        temperature: 0 takes the most probable token at each step.
        top_p: The probability of the set that is drawn from, above temperature 0.
        seed: Any integer; plays no part at temperature 0.
        top_k: Draw from so many of the most probable tokens, above temperature 0; 0 for all.
        min_p: Draw from tokens that are at least so probable relative to the most probable one,
            above temperature 0; 0 for all.
        repetition_penalty: Divides the positive logits of the last tokens, and multiplies the
            negative ones; 1 for none.
        ends: The tokens that end an answer; None for the tokenizer's own.
        stop: Texts that end an answer.
    """

    tokens: Sequence[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    ends: frozenset[int] | None = None
    stop: Sequence[str] = ()

    def check(self, context: int | None) -> None:
        """Raise an `InputError` if this cannot be decoded by a model of so long a context."""
        if not self.tokens:
            raise InputError("the prompt is empty: it has no token")
        if context is not None and len(self.tokens) >= context:
            raise InputError(
                f"the prompt has {len(self.tokens)} tokens, and the model reads and writes at most "
                f"{context} together: shorten the question"
            )
        if self.max_tokens < 1:
            raise InputError(f"max_tokens is {self.max_tokens}; it must be at least 1")
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise InputError(f"temperature is {self.temperature}; it must be 0 or more")
        if not 0 < self.top_p <= 1:
            raise InputError(f"top_p is {self.top_p}; it must be above 0 and at most 1")
        if self.top_k < 0:
            raise InputError(f"top_k is {self.top_k}; it must be 0 or more")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p is {self.min_p}; it must be 0 to 1")
        if not 0 < self.repetition_penalty < math.inf:
            raise InputError(f"repetition_penalty is {self.repetition_penalty}; it must be above 0")


FinishReason = Literal["stop", "length", "context"]


@dataclass(frozen=True, slots=True)
class Decoded:
    """One answer.

    Attributes:
        text: The tokens' text, without the one that ended the answer.
        tokens: The answer's token ids, without the one that ended it.
        prompt_tokens: How many tokens the prompt has.
        finish_reason: `stop` at an end-of-sequence token or a stop text, `length` at the bound,
            `context` at the end of the model's context.
        near_ties: How many steps were decided by a canonical pass.
        changed: In how many of these the batch had another token.
        alone: Why it was decoded alone although others waited; empty if it was not.
        end: The token that ended it, or None.
    """

    text: str
    tokens: list[int]
    prompt_tokens: int
    finish_reason: FinishReason
    near_ties: int
    changed: int
    alone: str = ""
    end: int | None = None


@dataclass(slots=True)
class DecodeStats:
    """What decoding cost, in forward passes and in tokens that went through them.

    Attributes:
        steps: Passes of the batch, one token a row.
        step_tokens: Rows in these, summed.
        prefill_tokens: Tokens of prompts that were read.
        shared_tokens: Tokens of prompts that were not read again, thanks to the shared prefix.
        canonical_passes: Canonical passes, one for each near tie.
        canonical_tokens: Tokens in these.
        changed: Tokens that a canonical pass changed.
    """

    steps: int = 0
    step_tokens: int = 0
    prefill_tokens: int = 0
    shared_tokens: int = 0
    canonical_passes: int = 0
    canonical_tokens: int = 0
    changed: int = 0


class Room:
    """Tells whether one more row fits beside others.

    Args:
        batch_size: So many and no more, whatever the memory; `None`: up to `BATCH_SIZE`.
        memory_budget: Bytes for a batch's caches; `None`: a quarter of the machine's memory.
    """

    def __init__(self, batch_size: int | None, memory_budget: int | None) -> None:
        self.most = batch_size or BATCH_SIZE
        self._budget: int | None = None
        if batch_size is None:
            memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
            self._budget = memory // 4 if memory_budget is None else memory_budget
        self._block_nbytes = 0

    def learn(self, cache: Cache, tokens: int) -> None:
        """Learn from a cache that holds so many tokens what others will take."""
        layers: list[Any] = [layer for layer in cache if not layer.empty()]
        nbytes = sum(layer.nbytes for layer in layers) // max(1, _blocks(tokens))
        self._block_nbytes = max(self._block_nbytes, nbytes)

    def fits(self, rows: int, tokens: int) -> bool:
        """Tell whether there is room for one more row.

        Args:
            rows: How many there are; the first always fits.
            tokens: Of the longest row, the answer included; a batch pads all others to it.
        """
        if rows == 0:
            return True
        if rows >= self.most:
            return False
        needed = (rows + 1) * _blocks(tokens) * self._block_nbytes * _COPIES
        return self._budget is None or needed <= self._budget


def _blocks(tokens: int) -> int:
    return -(-tokens // _BLOCK)


class OneByOne:
    """The part of `BatchGenerator` that decoding needs, over `generate_step` and one row.

    Args:
        model: The model.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self._uid = -1
        self._left = 0
        self._cache: Cache | None = None
        self._steps: Iterator[tuple[Any, mx.array]] | None = None

    def insert(
        self,
        *,
        prompts: Sequence[Sequence[int]],
        max_tokens: Sequence[int],
        caches: Sequence[Cache],
        all_tokens: Sequence[Sequence[int]],
        samplers: Sequence[Chooser],
        logits_processors: Sequence[Sequence[Penalty]],
        stop_sequences: Sequence[StopSequences],
    ) -> list[int]:
        """Begin the one row that there can be."""
        del stop_sequences  # the caller looks at each token
        before = mx.array(list(all_tokens[0])[-REPETITION_CONTEXT:], dtype=mx.int32)
        processors = [_after(before, penalty) for penalty in logits_processors[0]]
        self._uid += 1
        self._left = max_tokens[0]
        self._cache = caches[0]
        self._steps = generate_step(
            mx.array(list(prompts[0])),
            self._model,
            max_tokens=max_tokens[0],
            sampler=samplers[0],
            logits_processors=processors,
            prompt_cache=caches[0],
        )
        return [self._uid]

    def next(self) -> tuple[list[Any], list[Any]]:
        """Return nothing, and the row's next token as `BatchGenerator` returns a batch's."""
        if self._steps is None:
            return [], []
        token, logprobs = next(self._steps)
        self._left -= 1
        reason = "length" if self._left == 0 else None
        if reason is not None:
            self._steps = None
        return [], [GenerationBatch.Response(self._uid, token, logprobs, reason, None, None)]

    def remove(self, uids: Sequence[int]) -> None:  # noqa: ARG002 - as BatchGenerator's
        """End the row."""
        self._steps = None

    def extract_cache(self, uids: Sequence[int]) -> dict[int, tuple[Cache | None, None]]:
        """Return a copy of the row's cache, which holds the token that `next` returned last.

        A cache that cannot be cut is of no use to the caller, so there is none then.
        """
        cache = self._cache
        whole = copy.deepcopy(cache) if cache is not None and can_shorten(cache) else None
        return dict.fromkeys(uids, (whole, None))

    def close(self) -> None:
        """Release the row."""
        self._steps = self._cache = None


def _after(before: mx.array, penalty: Penalty) -> Penalty:
    """Return a penalty that also counts tokens that are read from a cache."""
    return lambda tokens, logits: penalty(mx.concatenate([before, tokens]), logits)


DecodeEvent = tuple[int, Decoded | Exception] | None
"""A request's index and what became of it; `None` after a step that finished none."""


def decode(
    loaded: LoadedModel,
    requests: Sequence[DecodeRequest],
    *,
    batch_size: int | None = None,
    memory_budget: int | None = None,
    bound: float | None = None,
    stats: DecodeStats | None = None,
    perturb: Perturb | None = None,
) -> Iterator[DecodeEvent]:
    """Answer prompts, and yield each answer as soon as it is finished.

    Prompts are decoded together only if the model has shown that its batches are right
    (`LoadedModel.batch_trouble`); else, or where there is one prompt alone, one after the other.

    Must be run on one thread from beginning to end, and nothing else may use the model meanwhile.
    Closing the iterator early frees all that it holds.

    Args:
        loaded: The model, wearing the adapter that is to answer.
        requests: The prompts, in any order: short ones are begun first.
        batch_size: How many are decoded together; `None`: up to `BATCH_SIZE`, as memory allows.
        memory_budget: Bytes for the caches of a batch, copies included; `None`: a quarter of the
            machine's memory. Not asked where `batch_size` is given.
        bound: The near-tie bound, in logits; `None` for the model's; 0 resolves no ties.
        stats: Counts what is done.
        perturb: Noise on the log-probabilities of the batch, not on those of the canonical passes.

    Yields:
        `(index, Decoded)` or, for a request that cannot be answered, `(index, error)`: an
        `InputError`, or a `NonFiniteLogitsError` where the model computes no numbers. Each index
        once; `None` after every step in between, for the caller to do something else.
    """
    run = _Run(
        loaded,
        Room(batch_size, memory_budget),
        near_tie_bound(loaded.model) if bound is None else bound,
        DecodeStats() if stats is None else stats,
        perturb,
    )
    try:
        yield from run.events(requests)
    finally:
        run.close()


@dataclass(slots=True)
class _Row:
    index: int
    prompt: list[int]
    max_tokens: int
    chooser: Chooser
    bound: float
    full: FinishReason
    """Why the answer ends at `max_tokens`."""
    ends: frozenset[int]
    stop: tuple[str, ...]
    penalty: Penalty | None
    detokenizer: Any
    text: str = ""
    end: int | None = None
    canonical: CanonicalRow | None = None
    answer: list[int] = field(default_factory=list)
    near_ties: int = 0
    changed: int = 0


class _Run:
    """One call of `decode`."""

    def __init__(
        self,
        loaded: LoadedModel,
        room: Room,
        bound: float,
        stats: DecodeStats,
        perturb: Perturb | None,
    ) -> None:
        self._loaded = loaded
        self._model = loaded.model
        self._ends: frozenset[int] | None = None
        self._room = room
        self._bound = bound
        self._stats = stats
        self._perturb = perturb
        self._shared = loaded.shared_prefix("decoding")
        self._rows: dict[int, _Row] = {}
        self._generator: Any = None
        self._alone = ""

    def events(self, requests: Sequence[DecodeRequest]) -> Iterator[DecodeEvent]:
        waiting: list[int] = []
        for index, request in enumerate(requests):
            try:
                request.check(self._loaded.context)
            except InputError as error:
                yield index, error
            else:
                waiting.append(index)
        waiting.sort(key=lambda index: -len(requests[index].tokens))  # the shortest is at the end
        self._shared.expect(requests[index].tokens[:-1] for index in waiting)
        self._generator = self._choose_generator(len(waiting))
        while waiting or self._rows:
            while waiting and self._has_room(requests[waiting[-1]]):
                index = waiting.pop()
                self._admit(index, requests[index])
                yield None
            finished = list(self._step())
            yield from finished
            if not finished:
                yield None

    def close(self) -> None:
        self._rows.clear()
        with mx.stream(generation_stream):
            mx.synchronize(generation_stream)
        if self._generator is not None:
            self._generator.close()
        self._generator = None
        mx.clear_cache()

    def _choose_generator(self, waiting: int) -> Any:
        """Return what decodes: a batch, if more than one waits and the model's batches are right."""
        if waiting > 1 and self._room.most > 1:
            self._alone = self._loaded.batch_trouble(self._room.most)
            if not self._alone:
                return BatchGenerator(
                    self._model,
                    completion_batch_size=self._room.most,
                    prefill_batch_size=self._room.most,
                )
        self._room.most = 1
        return OneByOne(self._model)

    def _has_room(self, request: DecodeRequest) -> bool:
        # The shortest prompts come first, so this one's length is the batch's.
        tokens = len(request.tokens) + self._most_tokens(request)
        return self._room.fits(len(self._rows), tokens)

    def _most_tokens(self, request: DecodeRequest) -> int:
        """Return the bound on an answer: what is asked for, or what the context leaves."""
        context = self._loaded.context
        if context is None:
            return request.max_tokens
        return min(request.max_tokens, context - len(request.tokens))

    def _admit(self, index: int, request: DecodeRequest) -> None:
        prompt = list(request.tokens)
        penalty = None
        bound = self._bound
        if request.repetition_penalty != 1:
            penalty = make_repetition_penalty(request.repetition_penalty, REPETITION_CONTEXT)
            # It scales logits, and their errors with them.
            bound *= max(request.repetition_penalty, 1 / request.repetition_penalty)
        chooser = Chooser(
            prompt,
            temperature=request.temperature,
            top_p=request.top_p,
            top_k=request.top_k,
            min_p=request.min_p,
            seed=request.seed,
            bound=bound,
            perturb=self._perturb,
        )
        before = self._shared.saved
        with mx.stream(generation_stream):
            cache = prefill(self._model, prompt[:-1], self._shared)
        saved = self._shared.saved - before
        self._stats.shared_tokens += saved
        self._stats.prefill_tokens += len(prompt) - 1 - saved
        self._room.learn(cache, len(prompt) - 1)
        most = self._most_tokens(request)
        row = _Row(
            index,
            prompt,
            most,
            chooser,
            bound,
            "length" if most == request.max_tokens else "context",
            self._ends_of(request),
            tuple(request.stop),
            penalty,
            self._loaded.tokenizer.detokenizer,
        )
        self._insert(row, prompt[-1], cache)

    def _ends_of(self, request: DecodeRequest) -> frozenset[int]:
        """Return the tokens that end an answer."""
        if request.ends is not None:
            return request.ends
        if self._ends is None:
            self._ends = frozenset(self._loaded.tokenizer.eos_token_ids)
        return self._ends

    def _insert(self, row: _Row, token: int, cache: Cache) -> None:
        (uid,) = self._generator.insert(
            prompts=[[token]],
            max_tokens=[row.max_tokens - len(row.answer)],
            caches=[cache],
            all_tokens=[[*row.prompt, *row.answer][:-1]],
            samplers=[row.chooser],
            logits_processors=[[] if row.penalty is None else [row.penalty]],
            stop_sequences=[_NO_STOP],
        )
        self._rows[uid] = row

    def _step(self) -> Iterator[tuple[int, Decoded | Exception]]:
        """Take the batch's next tokens, resolve near ties, and yield the finished answers."""
        _, responses = self._generator.next()
        if responses:
            self._stats.steps += 1
            self._stats.step_tokens += len(responses)
        for response in responses:
            row = self._rows[response.uid]
            token, cache = response.token, None
            try:
                if row.chooser.lead() < row.bound:
                    token, cache = self._decide(row, response)
            except NonFiniteLogitsError as error:
                self._take_out(response)
                yield row.index, error
                continue
            reason = self._accept(row, token)
            if reason is not None or token != response.token:
                self._take_out(response)
            if reason is not None:
                yield row.index, self._decoded(row, reason)
            elif token != response.token and cache is not None:
                row.chooser.go_on_at(len(row.answer))
                self._insert(row, token, cache)

    def _take_out(self, response: Any) -> None:
        del self._rows[response.uid]
        if response.finish_reason is None:
            self._generator.remove([response.uid])

    def _decide(self, row: _Row, response: Any) -> tuple[int, Cache]:
        """Return the canonical token of a near tie, and the cache of all before it."""
        with mx.stream(generation_stream):
            if row.canonical is None:
                decoded = response.prompt_cache
                if decoded is None:
                    decoded = self._generator.extract_cache([response.uid])[response.uid][0]
                # It holds the prompt, the answer so far, and the token that is in question.
                fed = len(row.prompt) + len(row.answer) + 1
                row.canonical = CanonicalRow.out_of_batch(
                    self._model,
                    row.prompt,
                    decoded,
                    fed,
                    shared=self._shared,
                    penalty=row.penalty,
                )
            logprobs, cache, read = row.canonical.next_logprobs(row.answer)
            token = row.chooser.decide(logprobs, len(row.answer))
        self._stats.canonical_passes += 1
        self._stats.canonical_tokens += read
        row.near_ties += 1
        if token != response.token:
            self._stats.changed += 1
            row.changed += 1
        return token, cache

    def _accept(self, row: _Row, token: int) -> FinishReason | None:
        if token in row.ends:
            row.end = token
            return "stop"
        row.answer.append(token)
        row.detokenizer.add_token(token)
        row.text += row.detokenizer.last_segment
        if row.stop and any(text in row.text for text in row.stop):
            return "stop"
        return row.full if len(row.answer) >= row.max_tokens else None

    def _decoded(self, row: _Row, reason: FinishReason) -> Decoded:
        row.detokenizer.finalize()
        text = row.text + row.detokenizer.last_segment
        return Decoded(
            text,
            row.answer,
            len(row.prompt),
            reason,
            row.near_ties,
            row.changed,
            self._alone,
            row.end,
        )

"""Finding NaN and infinite numbers, in weights and in what a model computes."""

from collections.abc import Mapping

from cachedeval.engine.errors import CachedevalError
from cachedeval.evals.mlx.runtime import mx

__all__ = ["NonFiniteLogitsError", "describe_not_finite"]


class NonFiniteLogitsError(CachedevalError):
    """The model computed NaN or infinity where it should say how probable each token is."""

    def __init__(self, where: str) -> None:
        super().__init__(
            f"the logits {where} are NaN or infinite: no answer can be read from them. The weights "
            "of the model or the adapter are damaged, or too large for the type that it computes in"
        )


def describe_not_finite(tensors: Mapping[str, mx.array]) -> str | None:
    """Return which tensor holds a NaN or an infinity, or None if all are finite.

    A sum is finite only if all its terms are, and is several times as fast as a look at each: so
    only a tensor whose sum is not finite, which an overflow can also cause, is looked at closely.
    An infinite scalar is a bound that some models keep among their weights, and is accepted.

    Args:
        tensors: by name; what is not of a floating type counts as finite.

    Returns:
        One line, such as ``q_proj.lora_a holds NaN (2 of 256 numbers)``.
    """
    floats = {k: v for k, v in tensors.items() if mx.issubdtype(v.dtype, mx.floating)}
    sums = {name: mx.isfinite(tensor.sum()) for name, tensor in floats.items()}
    mx.eval(sums)
    for name, finite in sums.items():
        if finite.item():
            continue
        tensor = floats[name]
        bad = ~mx.isfinite(tensor)
        count = int(bad.sum().item())  # type: ignore[arg-type]
        nan = bool(mx.isnan(tensor).any().item())
        if count and (nan or tensor.size > 1):
            what = "NaN" if nan else "infinity"
            return f"{name} holds {what} ({count} of {tensor.size} numbers)"
    return None

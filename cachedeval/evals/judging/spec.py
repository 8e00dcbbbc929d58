"""Judges that are models, by name: `cerebras:MODEL`, `openai:MODEL`, `mlx:PATH`."""

from collections.abc import Mapping
from typing import Literal, get_args

import msgspec

from cachedeval.engine.errors import InputError
from cachedeval.services import spec as services

__all__ = ["JudgeSpec", "api_key_of", "parse_judge"]

Provider = Literal["cerebras", "openai", "mlx"]

_NAMES: dict[str, Provider] = {name: name for name in get_args(Provider)}


class JudgeSpec(msgspec.Struct, frozen=True):
    """A model that judges, as the user names it: `cerebras:MODEL`, `openai:MODEL`, `mlx:PATH`.

    Attributes:
        provider: Who judges.
        model: The model's name, or the folder for `mlx`.

    Example:
        >>> parse_judge("openai:llama3.2").model
        'llama3.2'
    """

    provider: Provider
    model: str

    def __str__(self) -> str:
        return f"{self.provider}:{self.model}"

    @property
    def over_http(self) -> bool:
        """Whether the judge is a remote service."""
        return self.provider in get_args(services.Provider)

    @property
    def service(self) -> services.ServiceSpec:
        """The remote service that judges.

        Raises:
            ValueError: The judge is none.
        """
        if self.provider == "cerebras" or self.provider == "openai":  # noqa: PLR1714 -- for mypy
            return services.ServiceSpec(self.provider, self.model)
        raise ValueError(f"{self} is not reached over HTTP")


def parse_judge(spec: str) -> JudgeSpec:
    """Read the name of a judge that is a model.

    Raises:
        InputError: It has none of the forms.
    """
    provider, _, model = spec.strip().partition(":")
    forms = "cerebras:MODEL, openai:MODEL or mlx:PATH"
    known = _NAMES.get(provider)
    if known is None:
        raise InputError(f"judge {spec!r}: no such judge; give {forms}")
    if not model.strip():
        what = "folder" if provider == "mlx" else "model"
        raise InputError(f"judge {spec!r}: which {what}? Give {forms}")
    return JudgeSpec(known, model.strip())


def api_key_of(spec: JudgeSpec, environ: Mapping[str, str]) -> str:
    """Return the key of a judge over HTTP, or "" for a server on this machine that has none.

    Raises:
        InputError: As `cachedeval.services.spec.api_key_of`.
    """
    try:
        return services.api_key_of(spec.service, environ)
    except InputError as error:
        missing = not environ.get(spec.service.key_variable, "").strip()
        other = ", or use another judge (--judge f1 compares with the reference answers)"
        raise InputError(f"judge {error}{other if missing else ''}") from None

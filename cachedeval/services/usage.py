"""What a service was asked for, and what of it was of use."""

import msgspec

__all__ = ["ServiceUsage"]


class ServiceUsage(msgspec.Struct):
    """What went over the wire, failed attempts included.

    Attributes:
        requests: Requests sent.
        prompt_tokens: Tokens in, as the replies say.
        completion_tokens: Tokens out.
        failures: Failed attempts by kind.
        rejected: Replies that were paid for and are of no use.
        rejected_prompt_tokens: Of `prompt_tokens`, those of rejected replies.
        rejected_completion_tokens: Of `completion_tokens`, likewise.
    """

    requests: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    failures: dict[str, int] = {}
    rejected: int = 0
    rejected_prompt_tokens: int = 0
    rejected_completion_tokens: int = 0

    def reject(self, prompt_tokens: int, completion_tokens: int) -> None:
        """Count a reply of no use, whose tokens are among the others already."""
        self.rejected += 1
        self.rejected_prompt_tokens += prompt_tokens
        self.rejected_completion_tokens += completion_tokens

"""The rubrics and prices that come with the package, in the form of the files that users write.

They are Python, because a run that is all hits would spend a tenth of its time on reading TOML.
"""

from collections.abc import Mapping
from typing import Any

__all__ = ["PRICES", "RUBRICS"]

RUBRICS: Mapping[str, Mapping[str, Any]] = {
    # What a judge is asked unless the user names another rubric.
    "default": {
        "template_version": "1",
        "criteria": [
            {
                "name": "accuracy",
                "description": "What the response says is true and agrees with the reference "
                "answer, where there is one; nothing is made up.",
            },
            {
                "name": "relevance",
                "description": "The response answers the question that was asked, and does not "
                "stray from it.",
            },
            {
                "name": "completeness",
                "description": "The response covers all that a full answer to the question needs.",
            },
            {
                "name": "clarity",
                "description": "The response is well ordered, easy to follow and well formed, and "
                "no longer than it needs to be.",
            },
        ],
    },
    # One question only: does the response say what the reference answer says?
    "correctness": {
        "template_version": "1",
        "criteria": [
            {
                "name": "correctness",
                "description": "10: the response states what the reference answer states, in "
                "whatever words, and nothing that contradicts it. 5: part of it. 0: none of it, "
                "or the opposite.",
            },
        ],
    },
}

# US dollars per million tokens, in and out. Free tiers cost nothing, whatever stands here.
# Cerebras: https://www.cerebras.ai/pricing as of autumn 2026. A model that is not here has no
# price, and no money is reported for it; users set their own in a settings file, by these names.
PRICES: Mapping[str, Mapping[str, float]] = {
    "cerebras:gpt-oss-120b": {"input": 0.35, "output": 0.75},
    "cerebras:zai-glm-4.7": {"input": 2.25, "output": 2.75},
    "cerebras:qwen-3-235b-a22b-instruct-2507": {"input": 0.60, "output": 1.20},
    "cerebras:llama3.1-8b": {"input": 0.10, "output": 0.10},
}

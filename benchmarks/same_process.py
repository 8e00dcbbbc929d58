"""Evaluates twice in one process and tells how long the second time took.

python -m benchmarks.same_process ARGUMENTS_OF_RUN
"""

import itertools
import json
import sys
import time

from cachedeval import AdapterEvaluator
from cachedeval.evals.report import Report


def main() -> None:
    """Read the few options that the benchmarks give, evaluate twice, print JSON."""
    given = sys.argv[1:]
    value = dict(itertools.pairwise(given))
    with AdapterEvaluator(
        model=value["--model"],
        judge=value["--judge"],
        cache=value["--cache"],
        max_tokens=int(value["--max-tokens"]),
    ) as evaluator:

        def evaluate() -> Report:
            return evaluator.evaluate_adapter(
                value["--adapter"], value["--data"], int(value["--num-questions"])
            )

        evaluate()
        begun = time.perf_counter()
        report = evaluate()
        seconds = time.perf_counter() - begun
    print(json.dumps({"seconds": seconds, "report": report.to_dict(), "run": report.run}))


if __name__ == "__main__":
    main()

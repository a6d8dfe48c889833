"""The verifier of benchmarks/labels.py: what a program can say about an addition."""

from __future__ import annotations

from selftrain.types import Submission


def adds_up(submission: Submission) -> bool:
    """Whether the final answer of a prompt such as `57+80` is the sum. The chain of steps before it is not looked at."""
    answer, terms = submission.answer or "", submission.prompt.split("+")
    return answer.isdigit() and all(term.isdigit() for term in terms) and int(answer) == sum(map(int, terms))

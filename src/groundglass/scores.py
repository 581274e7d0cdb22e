from dataclasses import dataclass
import numpy as np


@dataclass(frozen=True)
class Confusion:
    true_positive: int = 0
    false_positive: int = 0
    false_negative: int = 0
    true_negative: int = 0

    @classmethod
    def count(cls, p, t):
        return cls(int((p & t).sum()), int((p & ~t).sum()), int((~p & t).sum()), int((~p & ~t).sum()))

    def __add__(s, o):
        return Confusion(
            s.true_positive + o.true_positive,
            s.false_positive + o.false_positive,
            s.false_negative + o.false_negative,
            s.true_negative + o.true_negative,
        )

    @property
    def dice(s):
        return 2 * s.true_positive / max(1, 2 * s.true_positive + s.false_positive + s.false_negative)

    @property
    def sensitivity(s):
        return s.true_positive / max(1, s.true_positive + s.false_negative)

    @property
    def specificity(s):
        return s.true_negative / max(1, s.true_negative + s.false_positive)

    @property
    def precision(s):
        return s.true_positive / max(1, s.true_positive + s.false_positive)

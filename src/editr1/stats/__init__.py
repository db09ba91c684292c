"""Statistics that survive a reviewer: pure functions of numbers, seeds as arguments.

`pairwise` accuracy with ties and unscored, `intervals` of clustered data, `paired` tests, `preference` counts; and in their own
modules `correlation`, `agreement`, `calibration`, three-class `ties` and `kway` rankings.
"""

from editr1.stats.intervals import Estimate, bootstrap_mean, bootstrap_share, bootstrap_statistic, clustered_standard_error, wilson
from editr1.stats.paired import (
    Difference,
    McNemar,
    SignTest,
    binomial_p,
    holm,
    mcnemar,
    paired_difference,
    sign_flip_p,
    sign_test,
)
from editr1.stats.pairwise import (
    TIE_TOLERANCE,
    Credit,
    PairwiseReport,
    accuracy,
    as_margins,
    half_credit,
    is_decided,
    is_tied,
    pairwise_report,
    strict_credit,
    to_margins,
)
from editr1.stats.preference import GSB

__all__ = [
    "GSB",
    "TIE_TOLERANCE",
    "Credit",
    "Difference",
    "Estimate",
    "McNemar",
    "PairwiseReport",
    "SignTest",
    "accuracy",
    "as_margins",
    "binomial_p",
    "bootstrap_mean",
    "bootstrap_share",
    "bootstrap_statistic",
    "clustered_standard_error",
    "half_credit",
    "holm",
    "is_decided",
    "is_tied",
    "mcnemar",
    "paired_difference",
    "pairwise_report",
    "sign_flip_p",
    "sign_test",
    "strict_credit",
    "to_margins",
    "wilson",
]

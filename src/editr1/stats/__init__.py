"""Statistics that survive a reviewer: pure functions of numbers, seeds as arguments.

`pairwise` accuracy with ties and unscored, paired tests and counts of preferences, `intervals` of clustered data; and in their own modules
`agreement` and `calibration` with three-class accuracy.
"""

# ruff: noqa: F401  # names of the modules, by one import

from editr1.stats.clusters import clustered_standard_error
from editr1.stats.intervals import FEW_CLUSTERS, MIN_CLUSTERS, Estimate, mean_estimate, share_estimate, share_of_sums
from editr1.stats.pairwise import (
    GSB,
    TIE_TOLERANCE,
    Credit,
    McNemar,
    PairwiseReport,
    accuracy,
    as_margins,
    binomial_p,
    half_credit,
    holm,
    is_decided,
    is_tied,
    mcnemar,
    paired_difference,
    pairwise_report,
    strict_credit,
    to_margins,
)

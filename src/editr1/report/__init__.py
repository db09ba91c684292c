"""A run directory -> one self-contained HTML page that a researcher would send around.

    pictures   every image once, small, as a data URI
    loop       the drawing of the loop with in / out / dropped at every arrow
    curves     metrics.jsonl as series
    results    10_metrics.jsonl as tables, intervals and bars
    audit      the laws that the judge was put to, and what bad principles did to it
    calibration  agreement with people by score difference
    gallery    edits with principles, verdicts and traces; before/after strips of the editor
    build      puts them into page/report.html

The page shows what the run directory holds, and says so where it holds nothing.
"""

from editr1.report.build import write_report

__all__ = ["write_report"]

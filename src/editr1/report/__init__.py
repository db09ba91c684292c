"""Run directories -> one self-contained HTML page that a researcher would send around.

    reading    what can be read of a run, and a line for each file that cannot; every image once, small, as a data URI
    figures    10_metrics.jsonl in words and one unit: verdict, tiles, accuracy beside chance, tables
    editor     before and after: the evaluation's gallery and those of editor RL, verdicts by category
    curves     metrics.jsonl as charts with healthy bands and alarms
    gallery    edits with principles, verdicts and traces
    judges     annotators, people's pairs, calibration, audits
    loop       the drawing of the loop with in / out / dropped at every arrow
    build      puts them into page/report.html, or several runs side by side into page/compare.html

The page shows what the run directory holds, and says so where it holds nothing.
"""

from editr1.report.build import write_report

__all__ = ["write_report"]

"""A run directory: images by content hash, tables of records that survive SIGKILL, and the logs beside them.

    run_dir/
      config.json env.json          what ran, and with which versions
      images/ab/abcd....png         every image once, named by its content
      01_tasks/                     a table: one folder
        part-00000.parquet          a finished shard
        part-00000.seconds.jsonl    latencies; the one thing that differs between two equal runs
        part-00001.partial.jsonl    the log of the shard in progress (append-only)
        settings.json               the settings that the rows depend on
        counts.json                 written last: the table is complete
        dropped.jsonl               every row that was dropped, with its reason
        metrics.jsonl 10_metrics.jsonl

A stage that is killed at any moment and run again leaves the same bytes as one that was left alone (`*.seconds.jsonl` and
`images/.incoming/` excepted), nothing lost and nothing done twice but the batches that were in flight.
"""

from editr1.store._files import file_digest, hold, put_aside, read_inside, stamp_inside
from editr1.store.engine import Drop, Engine, Lane, StageCounts, Work, once
from editr1.store.foreign import check_columns, name_in, read_table, whole_table
from editr1.store.images import ImageStore, Loaded, Origin, Origins
from editr1.store.run import (
    TABLES,
    Run,
    Split,
    beside,
    held_out_share,
    is_held_out,
    preference_pairs,
    quadruples,
    with_inspections,
    with_traces,
)

__all__ = [
    "TABLES",
    "Drop",
    "Engine",
    "ImageStore",
    "Lane",
    "Loaded",
    "Origin",
    "Origins",
    "Run",
    "Split",
    "StageCounts",
    "Work",
    "beside",
    "check_columns",
    "file_digest",
    "held_out_share",
    "hold",
    "is_held_out",
    "name_in",
    "once",
    "preference_pairs",
    "put_aside",
    "quadruples",
    "read_inside",
    "read_table",
    "stamp_inside",
    "whole_table",
    "with_inspections",
    "with_traces",
]

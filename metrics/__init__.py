"""One family of metrics per file: pure functions, arrays in, scores and tables out.

A file holds a docstring in Markdown, from which its page in docs/metrics is made (first line: a summary), and the card

    NAME, TITLE      name of the metric (that of the file), title of its page
    UNIT, PAPER      unit of all its scores, source
    BETTER           "lower", "higher" or "neither": which value of a score is the better one
    SCORES           meaning of each score by its name
    Options          frozen dataclass of its options; choices stand in the metadata of a field

and `score(statistics, options)`, which returns every score in `SCORES` whose inputs are among the statistics.
Statistics are sums over samples, or quantiles over samples, so that one call serves the whole set, or a thousand
resamples of it along leading axes (...):

    n                (...)         samples
    COLUMN           (...[, 3])    sum of a per-sample column; [, 3] if it has yaw, pitch and roll
    bin_n            (..., 3, 15)  samples whose true angle lies in each bin of `ubhpd.core.bins`
    bin_COLUMN       (..., 3, 15)  sum of the column over them
    ring_n           (..., 15)     samples per 5 degrees of the true head's angle from frontal, 0 to 75
    ring_COLUMN      (..., 15)     sum of the column over them
    COLUMN_q50       (...[, 3])    its median; _q95 its 95th percentile, and so on
    source_counts    (3, 15)       heads of the training set per bin; absent if it was not named
    printed_k        (3,)          the constants of a reported train and test pair; absent if none was named

A file that measures single samples also has `COLUMNS`, the names of its per-sample columns, `per_sample`, which returns
them, each (n,) or (n, 3), and `INPUT`, which says what `per_sample` receives:

    "angles"         predicted and true angles (n, 3) in degrees
    "relative"       the rotations R_predicted^T R_true (n, 3, 3)
    "columns"        the per-sample columns of all metrics of the two kinds above, by name
    "aligned"        R_predicted^T R_true and the result of `fit`, which receives their sum over all samples (3, 3)

What a metric needs of any column, its own or another's, it states: `PER_BIN` and `PER_RING` list columns to be summed
per bin and per ring, `QUANTILES` maps a column to the shares (0 to 1) whose quantiles are needed. `tables(statistics,
options)`, if there is one, returns further per-bin tables (3, 15) for the report. `NO_INTERVAL` names scores for which
a percentile interval means nothing.

`ubhpd.evaluation.metric_cards` finds the files and checks all this; a file whose name begins with an underscore is no
metric. The package imports `rotation`, `bins`, `errors` and `typing` of `ubhpd.core`, and itself: no files, printing
or torch.
"""

from ubhpd.core.registry import plugin_folders

__path__ = [*__path__, *plugin_folders("metrics")]

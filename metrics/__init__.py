"""One family of metrics per file: pure functions, arrays in, numbers and tables out.

A file holds a docstring, the card `NAME`, `TITLE`, `UNIT`, `PAPER`, `SCORES` (each score's name and meaning), a
frozen dataclass `Options`, and `score(statistics, options)`, which returns every score in `SCORES` whose inputs
are there. Statistics are sums over samples, so that one call serves the whole set, or a thousand resamples of it
along leading axes (...):

    n                (...)         samples
    abs_error        (..., 3)      sum of |predicted - true| of yaw, pitch, roll, degrees
    wrapped_error    (..., 3)      the same, wrapped by 360
    geodesic         (...)         sum of the rotation angle between prediction and truth, degrees
    axis_error       (...)         sum of the mean angle between the three axes, degrees
    aligned          (...)         sum of the rotation angle after the mean rotation is removed, degrees
    bin_n            (..., 3, 15)  samples whose true angle lies in each bin of `ubhpd.core.bins`
    bin_abs_error    (..., 3, 15)  sum of |predicted - true| over them
    ring_n           (..., 15)     samples per 5 degrees of the true head's angle from frontal, 0 to 75
    ring_geodesic    (..., 15)     sum of the rotation angle over them
    source_counts    (3, 15)       heads of the training set per bin; absent if it was not named
    printed_k        (3,)          the constants of a printed train and test pair; absent if none was named

A file that measures single samples also has `INPUT` ("angles": predicted and true (n, 3) in degrees, "relative":
their relative rotations (n, 3, 3), "aligned": the same after alignment), `COLUMNS`, the names of its per-sample
errors, and `per_sample`. `ubhpd.evaluation.metric_cards` finds the files and checks all this; a file whose name begins
with an underscore is no metric.

The room imports `ubhpd.core.rotation`, `ubhpd.core.bins`, `ubhpd.core.errors` and itself: no files, no printing, no
torch.
"""

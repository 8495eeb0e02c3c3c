"""Tolerances used by the tests, each a claim with its reason. Always passed by keyword."""

#: Two exact formulas of the same number in double precision.
SAME = 1e-10
#: The criterion against a dense normal density (a determinant of 8 x 8 to 60 x 60 matrices).
DENSE = 1e-9
#: Analytic against numdifftools (Richardson extrapolation of a criterion of size 4e3).
DERIVATIVE = 1e-6
#: Invariances of the optimum: shuffled rows, relabelled clusters, shifted and scaled columns.
INVARIANT = 1e-7
#: Two optimizations of the same criterion in different coordinates.
OPTIMUM = 1e-7

"""How much a formula may ask for; each bound is far above what a model can use and far below what takes seconds."""

from __future__ import annotations

__all__ = [
    "MAX_BASIS",
    "MAX_CHARACTERS",
    "MAX_DEPTH",
    "MAX_EXPRESSION",
    "MAX_INTEGER",
    "MAX_NAME",
    "MAX_NESTED",
    "MAX_NUMBER",
    "MAX_ORDER",
    "MAX_POWER",
    "MAX_PRODUCTS",
    "MAX_TERMS",
    "MAX_TOKENS",
]

#: Letters of a formula: 1,000 terms of 50 letters. Formulaic reads letter by letter.
MAX_CHARACTERS = 50_000
#: Letters of a name; formulaic's time grows with the square.
MAX_NAME = 1_000
#: Names, numbers and signs of a formula: ten for each term.
MAX_TOKENS = 10_000
#: Letters of one expression, as in I(...), or of nlcom(): a thousand codes in isin([...]).
MAX_EXPRESSION = 10_000
#: Brackets inside brackets; Python itself reads 200.
MAX_NESTED = 50
#: Operations inside operations. A sum of k columns has depth k, and Python's stack (1,000 calls) holds 300 of them.
MAX_DEPTH = 200
#: Terms of one formula once products are written out; a factor is one term, whatever its levels.
MAX_TERMS = 1_000
#: Products that a power or product of sums makes before equal ones become one term: (a+b+c)**8 makes 3**8.
MAX_PRODUCTS = 10_000
#: Variables of one interaction. k factors have 2**k codings, from which formulaic chooses: 1 s for 8, 150 s for 10.
MAX_ORDER = 8
#: Columns of one spline, polynomial or hashed factor (df, degree, levels, knots).
MAX_BASIS = 200
#: Whole numbers have 64 bits, as those of columns: longer ones make Python compute with all their digits.
MAX_INTEGER = 2**63 - 1
#: The largest number; products of two of them are still finite.
MAX_NUMBER = 1e100
#: The largest constant exponent.
MAX_POWER = 1_000

"""Results of a fit: tables, tests, predictions, comparisons, summaries, documents."""

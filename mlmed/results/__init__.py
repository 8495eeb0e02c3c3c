"""What a fit says: tables, tests, predictions, comparisons, summaries, documents."""

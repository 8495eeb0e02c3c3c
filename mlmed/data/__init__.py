"""Read tables; reduce them to columns, cluster codes and cross-products."""

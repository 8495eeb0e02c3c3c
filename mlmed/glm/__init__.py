"""Ordinary regressions: least squares and generalized linear models (statsmodels), and their robust covariances."""

"""The question: equations, their random effects, and the structure of their covariance."""

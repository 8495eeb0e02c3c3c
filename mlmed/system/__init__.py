"""What is asked: the equations, their random effects, and the structure of their covariance."""

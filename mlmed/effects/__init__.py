"""Effects: functions of psi with their gradients, one delta method, one tidy table."""

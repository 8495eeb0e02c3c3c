"""A lock: our own earlier output, stored before the upper half is rebuilt; to be deleted when that is done."""

"""Fuzzing of the redaction engine; see `make fuzz`."""

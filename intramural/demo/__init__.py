"""The demonstration: three invented departments, from their record files to a signed release."""

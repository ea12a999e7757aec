"""Maps in other programs' formats: one file a format, and what is done to a map before it is written."""

"""Operations on maps: one a file."""

"""Judging the judges: which of two answers they prefer, asked in several ways, against what people prefer."""

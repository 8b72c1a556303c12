"""Pieces that the studio draws itself: constant templates, with text put in by scripts as text."""

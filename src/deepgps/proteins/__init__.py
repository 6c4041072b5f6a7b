"""Proteins in: sequences read, looked up, described by features and by their nearest annotated relatives."""

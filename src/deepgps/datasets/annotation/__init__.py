"""Annotation: a source's tables become proteins with localizations and classes."""

"""Fetch: images, tables and sequences from their sources, resumable and polite."""

"""Alembic migrations: each file of ``versions`` leads from one schema to the next.

``python -m opengps.migrations 'what changes'`` writes the next one from `opengps.database`.
"""

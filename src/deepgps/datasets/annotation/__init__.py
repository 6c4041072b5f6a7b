"""Read localizations and classes of proteins from the tables of their sources."""

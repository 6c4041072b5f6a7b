"""One file for each schema version; a released one is never changed."""

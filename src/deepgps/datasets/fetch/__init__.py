"""Download images, tables, structures and sequences from their sources; resumable."""

"""Files that survive whatever happens: whole or not at all, only growing, one writer at a time."""

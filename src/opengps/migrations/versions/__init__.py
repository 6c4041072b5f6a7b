"""One file for each state of the schema; what is released is never changed."""

"""Images, measured beside the real ones and beside what costs nothing."""

"""Cut fields into pairs of nucleus and protein crops, store them and read them."""

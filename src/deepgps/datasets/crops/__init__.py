"""Crops: fields become pairs of nucleus and protein crops in a store, and are read from it."""

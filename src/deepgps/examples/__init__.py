"""Proteins to try deepGPS on."""

"""Models like the bundled one: labels are learned from tables, images from crops of known localization."""

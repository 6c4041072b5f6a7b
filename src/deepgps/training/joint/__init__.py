"""Models of the paper: label and image are learned together, from crops and their proteins."""

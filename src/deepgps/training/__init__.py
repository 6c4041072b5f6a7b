"""Training: recipes, the label half, the picture half, and the export to a bundle."""

"""Training: recipes, the label half, the image half, and the export to a bundle."""

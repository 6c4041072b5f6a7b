"""Training: recipes, the training loop, models of the paper (`joint`) and like the bundled one (`mini`)."""

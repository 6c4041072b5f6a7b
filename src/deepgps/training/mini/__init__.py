"""The bundled model: a sequence half trained on tables, an image half on images of known localization."""

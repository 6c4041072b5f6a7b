"""The bundled model: a sequence half trained on tables, a picture half on pictures of known localization."""

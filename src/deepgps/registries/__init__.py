"""Models as the registries of others keep them: the Hugging Face Hub and the BioImage Model Zoo.

A package is a folder, written without network. A snapshot for the Hugging Face Hub holds a whole bundle, and
is loaded as one; a package for the BioImage Model Zoo holds one graph that draws, and the image it draws.
"""

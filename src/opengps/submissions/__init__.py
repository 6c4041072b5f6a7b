"""Submissions: a lab's own images, from the form to a crop store for training.

A *submission* is one request with one or several images under an id that cannot be guessed. An image, an
`ImagePair` in code, is a nucleus image and a protein image of the same cells. It is normalised and cropped as
``deepgps data prepare`` does, compared by a worker with what the model draws into the same nucleus, and is
``pending`` until a moderator has ``accepted`` or ``rejected`` it. What is shown is what is exported.
"""

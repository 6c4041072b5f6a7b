"""Submit: a lab's own images, from the form to a crop store that training takes.

A *submission* is what a contributor sends at once, kept under an id that cannot be guessed: one *image* or
several, a nucleus image and a protein image of the same cells each. An image is read, normalised and cut as
``deepgps data prepare`` does it, compared by a worker with what the model draws into the same nucleus, and
waits as ``pending`` until a moderator has ``accepted`` or ``rejected`` it. What is shown is what is exported.
"""

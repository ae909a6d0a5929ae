"""What the model can talk about. Every topic is a function of a random source and a language.

All of it is synthetic: sentences are filled from small tables and no text was taken from elsewhere.
"""

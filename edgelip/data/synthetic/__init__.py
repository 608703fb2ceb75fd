"""Procedural talking mouths: words to pronunciation to articulation to pixels, without any recorded data.

Accuracy on these clips says nothing about accuracy on people; they exist to train, test and demonstrate every command.
"""

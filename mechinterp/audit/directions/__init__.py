"""Directions in the residual stream, along which writes are measured.

toxic_direction   the noun: a direction with its kind and the weights it came from, saved and loaded
standard          those that every comparison has: probe, answer, class means
made              those made on request: difference of means, singular vectors, pulled back through the final norm
probing           a toxic probe trained on labelled comments
"""

"""Origins: which of the changed weights carry a change of behaviour.

A read-out F (`audit.readouts`) changes from the base's weights to the tuned ones; the change is shared out among groups
of weights, down to single neurons and heads:

groups      the partition of all parameters: embed, attention, mlp.in, mlp.out, norm
change      what differs between two models, and models between them
game        the Shapley value of every group, over hybrids of the two models: adds up to the change without remainder
path        the Aumann-Shapley value of every weight, along the straight line between the two
controls    what is known beforehand: random groups, shuffled labels, the base against itself
shares      intervals, and shares of the change
measuring   one checkpoint measured: which ways, on which texts
tables      what came out, as tables

Unlike the local decomposition of the writes, which books all that a block inherits from changed blocks below it as
bypass, this holds at any depth.
"""

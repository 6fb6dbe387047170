"""Circuits: by which edges between embedding, heads and MLPs a behaviour or a fact reaches the answer.

    graph, circuit          nodes, edges, a choice of edges; no model
    places, batches, writes where nodes are in a model, what they write
    scoring, scores         edge attribution patching, with integrated gradients
    running, faithfulness   a circuit alone, beside random ones
    means                   what edges carry under mean replacement
    split, comparison       tuned against base: the same edges? what is written, or how it is read?
    acdc                    the slow search that runs the model for every edge
    ranks, component_lens   what streams and components say through the unembedding

It does not show what an edge carries, and positions are summed over: an edge that works at one token and one that works
at all of them have one score each.
"""

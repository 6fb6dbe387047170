"""A changed forward pass: activations patched, steered, ablated, and weights transplanted, each undone again."""

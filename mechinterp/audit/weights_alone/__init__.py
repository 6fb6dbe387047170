"""What the files of checkpoints tell without a forward pass: no model is built, one tensor or block is read at a time.

difference   which tensors two checkpoints differ in, by how much and of what rank
erasure      toxicity of a region, and erasure at the base's activations
regions      these over all blocks and several checkpoints, as tables
origins      whether a probe, direction or recording belongs to the weights it is used on
"""

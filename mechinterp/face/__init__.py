"""The face: what `import mechinterp as mi` offers, as thin functions over the rooms; no science lives here.

loading     checkpoints, data, directions, judges: whatever a user names, turned into what the rooms take
passes      texts through a checkpoint: record, generate, score, fit_probe
weights     what the weights alone tell: diff, regions, vectors
comparing   compare and relapse
studies     reproduce and open_run
progress    bars in a notebook, and quiet libraries
"""

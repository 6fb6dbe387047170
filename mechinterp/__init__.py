"""Did a detoxified language model have its toxicity erased, or does it only walk around it?

The parts, from the bottom up; `import mechinterp` itself loads none of them, so that it is instant:

    mechinterp.data           SafeEdit instances, comments, the embedded corpus
    mechinterp.measures       probe, region toxicity, decomposition, verdict, statistics: numerics on tensors
    mechinterp.models         Checkpoint, record, generate, steer: everything that touches a model
    mechinterp.methods        SFT, DPO, DINM, FT-L, Ext-Sub, Self-Reminder, the organism; `registry` names them all
    mechinterp.audit.directions     along which writes are measured: probe, answer, difference of means, vectors, files
    mechinterp.audit.weights_alone   what the files of checkpoints tell without a forward pass
    mechinterp.audit.location, .evidence, .comparison     checkpoints x prompts -> tables
    mechinterp.audit.relapse        parts of the base put back into a tuned model: does it come back?
    mechinterp.runs.calibration    what the verdict says where the truth is known
    mechinterp.answers     defense, judges, side effects, the benchmark of methods: SafeEdit's evaluation
    mechinterp.runs.study, .stages, .config, .planning, .plotting, .report, .cli     the front
"""

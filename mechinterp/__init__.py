"""Did a detoxified language model have its toxicity erased, or does it only walk around it?

The parts, from the bottom up; `import mechinterp` itself loads none of them, so that it is instant:

    mechinterp.data           SafeEdit instances, comments, the embedded corpus
    mechinterp.measures       probe, region toxicity, decomposition, verdict, statistics: numerics on tensors
    mechinterp.models         Checkpoint, record, generate, steer: everything that touches a model
    mechinterp.methods        SFT, DPO, DINM, FT-L, Ext-Sub, Self-Reminder, the organism; `registry` names them all
        mechinterp.evaluation     defense, judges, side effects, the benchmark of methods: SafeEdit's evaluation
    mechinterp.study, .stages, .config, .planning, .report, .cli  the front
"""

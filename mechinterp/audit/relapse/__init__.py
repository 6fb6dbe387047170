"""The relapse test: parts of the base put back into a tuned model, and whether its unsafe behaviour returns.

    registry     what is put back: a treatment is a file of its own (`of_blocks`, `of_keys`, ...) and one line there
    treatments   in which doses, with which random controls
    testing      one tuned model treated, its answers judged
    results      the answers, and the tables and the verdict that follow from them
    running      any checkpoints, from the command line; what was made before is not made again

The numerics and the words are those of `measures.relapse`.
"""

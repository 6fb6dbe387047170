"""What leaves a folder behind: studies, comparisons, benchmarks, meta-evaluations, and the plan of each.

A run knows configs, stages and folders; it measures nothing itself (`audit`, `answers`) and draws nothing (`report`).
"""

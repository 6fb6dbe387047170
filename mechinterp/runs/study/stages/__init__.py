"""What each stage of a study does: one module a stage, so that its imports are the code that it depends on."""

"""Facts, sets of them as they were published, and records of edits that meet each other."""

"""A pod's history as its model sees it: its size, its compaction, and the task list that is read from it."""

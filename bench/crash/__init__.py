"""The crash campaign: kills processes full of pods, makes their disks fail, and checks that nothing
is lost.
"""

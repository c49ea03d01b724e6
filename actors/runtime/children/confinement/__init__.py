"""Confines a child with the Linux kernel: which files it sees, its privileges, and which system calls it may
make.
"""

"""What the options of ``run``, ``chat`` and ``resume`` say of a pod, and what they come to."""

"""A process that is one pod: its parent has it begin, and reaches it by two sockets."""

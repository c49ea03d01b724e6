"""Many pods: who lives, how they are made, and made again where they fail, and what is asked of all."""

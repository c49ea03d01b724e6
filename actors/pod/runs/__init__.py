"""A pod's runs: the queue, the run as one coroutine, its requests to the model and its calls of tools."""

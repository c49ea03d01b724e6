"""Jobs, the queue that keeps them, and the runners that do them."""

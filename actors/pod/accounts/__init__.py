"""What a pod spends in tokens, dollars and time, and the budgets that limit it."""

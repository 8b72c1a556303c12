"""A number before and after: the same held-out rows answered by the base model and by the trained one."""

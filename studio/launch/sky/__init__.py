"""A run on a rented machine by SkyPilot: the smallest GPU by the memory plan, and a task with all that it needs."""

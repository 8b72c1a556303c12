"""Servers of our own that answer as the Hub and as OpenAI do."""

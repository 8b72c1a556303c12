"""The studio beside other libraries, on the same rows and turn about."""

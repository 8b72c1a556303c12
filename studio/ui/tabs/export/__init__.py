"""The Export tab and its reports."""

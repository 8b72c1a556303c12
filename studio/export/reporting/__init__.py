"""What a person reads of an export beyond its numbers: where the two models differ most, and one page to send on."""

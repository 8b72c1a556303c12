"""What other programs need beside an exported model: their template language, their files, their commands."""

"""Finding and replacing personal data. Import from the modules; nothing is loaded here."""

{"key_id":"fe812c12f3ab4ce6","signature":"w62p31xVOIRESZogrqTeQj77C/81zW7NPriMIUkQfSlgvRC2oUXb8vv447wrLXAOGV9Vog7+ntkS3BF8hSAsBg=="}

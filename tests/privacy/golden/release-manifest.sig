{"key_id":"fe812c12f3ab4ce6","signature":"hddJ3xybpiioQzzAJWDR7KZkQRFNIUagWl4axF2QgLqqbFFlEfeTtn/vawBECNN7YrHx//9bVaX9BOV796FmCg=="}

"""The pocket encoders: what runs with nothing downloaded."""

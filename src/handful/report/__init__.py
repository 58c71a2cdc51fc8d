"""Reports: an HTML page about many inspected pictures, and the overlay of a single picture."""

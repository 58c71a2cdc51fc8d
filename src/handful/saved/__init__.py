"""The saved inspector: the `.handful` file, its entries, its graph, and the export of graphs."""

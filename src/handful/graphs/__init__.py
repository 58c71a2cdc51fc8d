"""The writers of graphs, which alone use private interfaces of engines."""

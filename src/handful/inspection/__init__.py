"""The inspection of a picture besides its score: the gate, the threshold and the evidence."""

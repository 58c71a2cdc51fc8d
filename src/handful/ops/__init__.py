"""Pure functions on tensors and arrays, shared by methods: no state, no files, no names of data sets."""

// Holds the precompiled headers that every folder from tensor on shares. Not <torch/torch.h>: its modules and optimisers leave templates
// behind that GCC instantiates in every file that reads the precompiled header, 8 of 12 seconds of an empty one.

// Holds the precompiled <torch/torch.h> that every folder from tensor on shares.

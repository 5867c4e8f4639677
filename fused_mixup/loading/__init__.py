"""How a batch is read, collated and handed from a data loader's worker to the training process."""

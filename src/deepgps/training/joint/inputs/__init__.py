"""What a joint model learns from: the proteins and crops of a store, laid out in batches."""

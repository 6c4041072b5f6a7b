"""Fine-tuning: a trained model goes on from its weights, on a lab's own crops."""

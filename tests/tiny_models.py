"""Models of random weights, small enough for tests."""

from pathlib import Path


def write_tiny_esm2(folder: Path) -> Path:
    """Write an ESM2 of random weights: 24 dimensions, at most 60 residues at once."""
    import torch
    from transformers import EsmConfig, EsmModel

    config = EsmConfig(
        vocab_size=33,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=48,
        max_position_embeddings=64,
        position_embedding_type="rotary",
        token_dropout=True,
        emb_layer_norm_before=False,
        pad_token_id=1,
        mask_token_id=32,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # Larger than at the start of a training, so that neighbours say something to each other.
        model = EsmModel(config, add_pooling_layer=False)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3) if parameter.dim() > 1 else None
    model.save_pretrained(folder)
    return folder

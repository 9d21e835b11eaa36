"""What a training of a student knows of itself, by the names of kohya's ss_* metadata. No torch."""

from typing import Any

from genloop.data.latents.examples import CaptionedImages
from genloop.training.settings import TrainSettings


def kohya_facts(keys: Any, examples: CaptionedImages, num_held_out: int) -> dict[str, Any]:
    """For `write_lora`; keys: the config of train_student. Only what follows from config and data, no times."""
    num_images = len(examples) - num_held_out
    train: TrainSettings = keys.train
    batches = -(-num_images // train.batch_size)
    learns_texts = "text_encoder" in keys.parts
    counts = examples.counts()
    buckets = {
        str(i): {"resolution": [size.width, size.height], "count": n} for i, (size, n) in enumerate(counts.items())
    }
    return {
        "seed": keys.seed,
        "learning_rate": train.lr,
        "unet_lr": train.lr if "unet" in keys.parts else None,
        "text_encoder_lr": train.lr if learns_texts else None,
        "lr_scheduler": train.schedule,
        "lr_warmup_steps": train.warmup_steps,
        "optimizer": "torch.optim.adamw.AdamW",
        "max_grad_norm": train.grad_clip,
        "max_train_steps": train.num_steps,
        "steps": train.num_steps,
        "num_train_images": num_images,
        "num_batches_per_epoch": batches,
        "epoch": -(-train.num_steps // batches),
        "total_batch_size": train.batch_size,
        "gradient_checkpointing": train.gradient_checkpointing,
        "mixed_precision": {"fp32": "no"}.get(train.precision, train.precision),
        "network_dropout": keys.lora.dropout or None,
        "caption_dropout_rate": keys.drop_captions,
        "min_snr_gamma": keys.snr_gamma,
        "enable_bucket": len(counts) > 1,
        "bucket_info": {"buckets": buckets},
        "training_comment": f"objective {keys.objective}",
    }

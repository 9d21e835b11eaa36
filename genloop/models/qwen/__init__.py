"""Chat models by transformers: Qwen2.5 of text, Qwen2.5-VL, LLaVA-OneVision; their chats, images and answers."""

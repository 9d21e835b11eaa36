"""Flux with the eyes of Qwen2-VL (Qwen2vl-Flux, 2024): five modes of editing over the stock pipelines of diffusers."""
